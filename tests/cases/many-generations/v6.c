#include "case.h"
//# Patch: ok
//# Expect: 6 of 6
//# Reject: of 5

static int calls;
NOINLINE int number(void) { return 6; }

void answer(const char *line)
{
  (void)line;
  printf("%d of %d\n", ++calls, number());
}
