#include "case.h"
//# Patch: refuse data-size data-type
//# Expect: 2

static NOINLINE int count(void)
{
  static int n[60];

  return ++n[0];
}

void answer(const char *line)
{
  (void)line;
  printf("%d\n", count());
}
