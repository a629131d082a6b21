#include "case.h"
//# Patch: ok
//# Expect: 4 of 4
//# Reject: of 3

static int calls;
NOINLINE int number(void) { return 4; }

void answer(const char *line)
{
  (void)line;
  printf("%d of %d\n", ++calls, number());
}
