// Eight generations one after another, back and forth.
#include "case.h"
//# Expect: 1 of 1

static int calls;
NOINLINE int number(void) { return 1; }

void answer(const char *line)
{
  (void)line;
  printf("%d of %d\n", ++calls, number());
}
