#include "case.h"
//# Patch: ok
//# Expect: 22
//# Reject: 12

static int chosen(int n) { return n + 1; }
static int (*resolve(void))(int) { return chosen; }
int picked(int n) __attribute__((ifunc("resolve")));
NOINLINE int call(int n) { return picked(n); }
NOINLINE int unrelated(int n) { return n + 20; }

void answer(const char *line)
{
  (void)line;
  printf("%d\n", call(unrelated(1)));
}
