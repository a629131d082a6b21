#include "case.h"
//# Patch: ok
//# Expect: held 10, same 1

static int (*volatile picked)(int);
static NOINLINE int fresh(int n) { return n + 9; }

void answer(const char *line)
{
  (void)line;
  if (!picked)
    picked = fresh;
  printf("held %d, same %d\n", picked(1), picked == fresh);
}
