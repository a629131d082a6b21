#include "case.h"
//# Patch: ok
//# Stdin: 1
//# Expect: 121, stored 2
//# Reject: 111

NOINLINE int step(long n, int by) { return (int)n + by + 20; }
static int (*volatile stored)(int);
void answer(const char *line)
{
  int n = atoi(line);

  printf("%d, stored %d\n", step(n, 100), stored(n));
}
