#include "case.h"
//# Patch: ok
//# Expect: 21 1

NOINLINE int pick(int n) { return n; }
NOINLINE int pick(long n) { return (int)n + 20; }
static int (*volatile stored)(int) = pick;

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", pick(1L), stored(1));
}
