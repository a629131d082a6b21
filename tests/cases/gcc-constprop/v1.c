// Copies that the compiler makes for constant arguments (.constprop.N) change, are numbered anew, vanish and appear.
#include "case.h"
//# Symbol [gcc -O2|-O3]: scale\.constprop\..*
//# Expect: 27 32

static NOINLINE int scale(int n, int by, int plus)
{
  int sum = n;

  for (int i = 0; i < by; i++)
    sum += by + (sum & plus);
  return sum;
}
NOINLINE int five(int n) { return scale(n, 5, 0); }
NOINLINE int again(int n) { return scale(n + 5, 5, 0); }

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", five(2), again(2));
}
