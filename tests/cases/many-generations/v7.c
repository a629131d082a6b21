#include "case.h"
//# Patch: ok
//# Expect: 7 of 7
//# Reject: of 6

static int calls;
NOINLINE int number(void) { return 7; }

void answer(const char *line)
{
  (void)line;
  printf("%d of %d\n", ++calls, number());
}
