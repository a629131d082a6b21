#include "case.h"
//# Patch: nothing
//# Expect: 6

/* A comment,
   of several lines. */



static int n = 4;
NOINLINE int next(void) { return ++n; }

void answer(const char *line)
{
  (void)line;
  printf("%d\n", next());
}
