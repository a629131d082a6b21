#include "case.h"
//# Patch: ok
//# Expect: 4 12

NOINLINE int helper(int n) { return n + 3; }
int counter = 10;

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", helper(1), ++counter);
}
