#include "case.h"
//# Patch: ok
//# Expect: 3 30 100

NOINLINE int f(void)
{
  static int n;

  return n += 1;
}
NOINLINE int g(void)
{
  static int n;

  return n += 10;
}

NOINLINE int h(void)
{
  static int n;

  return n += 100;
}

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d\n", f(), g(), h());
}
