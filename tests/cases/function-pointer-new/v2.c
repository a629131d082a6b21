#include "case.h"
//# Patch: ok
//# Expect: picked 8, same 1

static int (*volatile picked)(int);
static NOINLINE int fresh(int n) { return n + 7; }

void answer(const char *line)
{
  (void)line;
  if (!picked)
    picked = fresh;
  printf("picked %d, same %d\n", picked(1), picked == fresh);
}
