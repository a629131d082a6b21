#include "case.h"
//# Patch: ok
//# Expect: 2 of 2
//# Reject: of 1

static int calls;
NOINLINE int number(void) { return 2; }

void answer(const char *line)
{
  (void)line;
  printf("%d of %d\n", ++calls, number());
}
