// A static local that leaves the source and comes back with its function goes on.
#include "case.h"
//# Expect: 1
//# Stdin: again
//# Expect: 2

static NOINLINE int count(void)
{
  static int n;

  return ++n;
}

void answer(const char *line)
{
  (void)line;
  printf("%d\n", count());
}
