#include "case.h"
//# Patch: ok
//# Expect: 3 of 3
//# Reject: of 2

static int calls;
NOINLINE int number(void) { return 3; }

void answer(const char *line)
{
  (void)line;
  printf("%d of %d\n", ++calls, number());
}
