// Without type information.
#include "case.h"
//# Flags: -g0
//# Expect: 2

static int n = 1;
NOINLINE int next(void) { return ++n; }

void answer(const char *line)
{
  (void)line;
  printf("%d\n", next());
}
