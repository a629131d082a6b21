// A function that the image chooses when it is loaded stays what it was chosen to be; its callers can be patched.
#include "case.h"
//# Flags: -Wno-attributes
//# Expect: 2

static int chosen(int n) { return n + 1; }
static int (*resolve(void))(int) { return chosen; }
int picked(int n) __attribute__((ifunc("resolve")));
NOINLINE int call(int n) { return picked(n); }
NOINLINE int unrelated(int n) { return n; }

void answer(const char *line)
{
  (void)line;
  printf("%d\n", call(unrelated(1)));
}
