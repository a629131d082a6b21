#include "case.h"
//# Patch: ok
//# Symbol [gcc -O2|-O3]: scale\.constprop\..*
//# Expect: 33 38

static NOINLINE int scale(int n, int by, int plus)
{
  int sum = n;

  for (int i = 0; i < by; i++)
    sum += by + 1 + (sum & plus);
  return sum;
}
NOINLINE int five(int n) { return scale(n + 1, 5, 0); }
NOINLINE int again(int n) { return scale(n + 6, 5, 0); }

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", five(2), again(2));
}
