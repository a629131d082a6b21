#include "case.h"
//# Patch: refuse type-layout
//# Note: struct point
//# Expect: three 13

int sum(int n);

void answer(const char *line)
{
  (void)line;
  printf("four %d\n", sum(1));
}
