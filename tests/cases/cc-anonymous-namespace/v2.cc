#include "case.h"
//# Patch: ok
//# Expect: 12 102

namespace {
int counter = 0;
NOINLINE int step() { return ++counter + 10; }
}
int other();

void answer(const char *line)
{
  (void)line;
  int first = step();

  printf("%d %d\n", first, other());
}
