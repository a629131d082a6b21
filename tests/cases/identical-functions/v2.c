#include "case.h"
//# Patch: ok
//# Expect: 2 9 2
//# Reject: 2 2

NOINLINE int left(int n) { return n * 3 - 1; }
NOINLINE int right(int n) { return n * 10 - 1; }
static NOINLINE int third(int n) { return n * 3 - 1; }
static int (*volatile stored)(int) = right;

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d\n", left(1), stored(1), third(1));
}
