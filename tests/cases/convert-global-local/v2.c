#include "case.h"
//# Patch: ok
//# Expect: 3 11
//# Reject: 2

static NOINLINE int helper(int n) { return n + 2; }
static int counter = 10;

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", helper(1), ++counter);
}
