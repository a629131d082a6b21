#include "case.h"
//# Patch: nothing
//# Expect: 2

static int calls;

void answer(const char *line)
{
  (void)line;
  printf("%d\n", ++calls);
}
