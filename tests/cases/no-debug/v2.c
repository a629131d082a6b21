#include "case.h"
//# Patch: ok
//# Expect: 13
//# Note: carries no type information

static int n = 1;
NOINLINE int next(void) { return ++n + 10; }

void answer(const char *line)
{
  (void)line;
  printf("%d\n", next());
}
