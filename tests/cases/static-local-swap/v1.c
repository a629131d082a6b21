// Static locals of one name: a new one takes the number of an old one and must not take its value.
#include "case.h"
//# Expect: 1 10
//# Stdin: again
//# Expect: 2 20

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

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", f(), g());
}
