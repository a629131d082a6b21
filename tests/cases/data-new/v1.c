// New variables: with and without initial value, constants, pointers to others; initialised once.
#include "case.h"
//# Expect: 1

static int calls;

void answer(const char *line)
{
  (void)line;
  printf("%d\n", ++calls);
}
