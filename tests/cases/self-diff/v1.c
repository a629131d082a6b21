// The same source again.
#include "case.h"
//# Expect: 1

static int calls;

void answer(const char *line)
{
  (void)line;
  printf("%d\n", ++calls);
}
