#include "case.h"
//# Patch: ok
//# Expect: 8 of 1
//# Reject: of 7

static int calls;
NOINLINE int number(void) { return 1; }

void answer(const char *line)
{
  (void)line;
  printf("%d of %d\n", ++calls, number());
}
