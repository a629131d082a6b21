#include "case.h"
//# Patch: ok
//# Expect: 5 of 5
//# Reject: of 4

static int calls;
NOINLINE int number(void) { return 5; }

void answer(const char *line)
{
  (void)line;
  printf("%d of %d\n", ++calls, number());
}
