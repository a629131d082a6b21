#include "case.h"
//# Patch: ok
//# Expect: picked 9, same 1
//# Reject: picked 8
//# Changed [-O0]: fresh

static int (*volatile picked)(int);
static NOINLINE int fresh(int n) { return n + 8; }

void answer(const char *line)
{
  (void)line;
  if (!picked)
    picked = fresh;
  printf("picked %d, same %d\n", picked(1), picked == fresh);
}
