// A function becomes file-local and public again; a variable too. That is another function and another variable.
#include "case.h"
//# Expect: 2 11

NOINLINE int helper(int n) { return n + 1; }
int counter = 10;

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", helper(1), ++counter);
}
