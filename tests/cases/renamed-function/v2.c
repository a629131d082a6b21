#include "case.h"
//# Patch: ok
//# Expect [gcc]: now 2
//# Expect [clang]: now 1
//# Note [gcc]: goes on with the value

static NOINLINE int tally(void)
{
  static int n;

  return ++n;
}

void answer(const char *line)
{
  (void)line;
  printf("now %d\n", tally());
}
