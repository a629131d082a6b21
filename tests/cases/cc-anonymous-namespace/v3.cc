#include "case.h"
//# Patch: ok
//# Expect: 13 1103
//# Reject: 13 103

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
