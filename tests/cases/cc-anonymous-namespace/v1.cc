// Functions and variables of an anonymous namespace, of one name in two files.
#include "case.h"
//# Expect: 1 101

namespace {
int counter = 0;
NOINLINE int step() { return ++counter; }
}
int other();

void answer(const char *line)
{
  (void)line;
  int first = step();

  printf("%d %d\n", first, other());
}
