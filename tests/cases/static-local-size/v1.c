// A static local that changes its size is refused, not taken for a new one.
#include "case.h"
//# Not: clang -O1|-O2|-O3|-Os|-Og
//# Expect: 1

static NOINLINE int count(void)
{
  static int n[20];

  return ++n[0];
}

void answer(const char *line)
{
  (void)line;
  printf("%d\n", count());
}
