#include "case.h"
//# Patch: ok
//# Expect: back 3

static NOINLINE int count(void)
{
  static int n;

  return ++n;
}

void answer(const char *line)
{
  (void)line;
  printf("back %d\n", count());
}
