#include "case.h"
//# Patch: ok
//# No symbol [gcc -O2]: scale\.constprop.*
//# Expect: 44 37
//# Reject: 32

static NOINLINE int scale(int n, int by, int plus)
{
  int sum = n;

  for (int i = 0; i < by; i++)
    sum += by + 1 + (sum & plus);
  return sum;
}
NOINLINE int five(int n) { return scale(n, n * 3, n & 4); }
NOINLINE int again(int n) { return scale(n + 5, 5, 0); }

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", five(2), again(2));
}
