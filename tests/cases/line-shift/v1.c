// Lines move, comments change: nothing does.
#include "case.h"
//# Expect: 5

static int n = 4;
NOINLINE int next(void) { return ++n; }

void answer(const char *line)
{
  (void)line;
  printf("%d\n", next());
}
