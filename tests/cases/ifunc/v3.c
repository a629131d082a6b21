#include "case.h"
//# Patch: refuse ifunc
//# Expect: 12

static int chosen(int n) { return n + 1; }
static int (*resolve(void))(int) { return chosen; }
int picked(int n) __attribute__((ifunc("resolve")));
NOINLINE int call(int n) { return picked(n) + 100; }
NOINLINE int unrelated(int n) { return n + 10; }

void answer(const char *line)
{
  (void)line;
  printf("%d\n", call(unrelated(1)));
}
