#include "case.h"
//# Patch: ok
//# Stdin: 1
//# Expect: 111, stored 2
//# Reject: 2, stored 2
//# Note: is a new function

NOINLINE int step(long n, int by) { return (int)n + by + 10; }
static int (*volatile stored)(int);
void answer(const char *line)
{
  int n = atoi(line);

  printf("%d, stored %d\n", step(n, 100), stored(n));
}
