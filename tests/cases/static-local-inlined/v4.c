#include "case.h"
//# Patch: ok
//# Expect: 12 15 3

static NOINLINE int next(void)
{
  static int n;

  return n += 2;
}
NOINLINE int one(void) { return next(); }
NOINLINE int two(void) { return next() + 1; }

void answer(const char *line)
{
  (void)line;
  int first = one();

  printf("%d %d %d\n", first, two(), 3);
}
