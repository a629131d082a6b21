#include "case.h"
//# Patch: ok
//# Note: struct point has another layout; the process has no code that knows it
//# Expect: three 12
//# Reject: two

int sum(int n);

void answer(const char *line)
{
  (void)line;
  printf("three %d\n", sum(1));
}
