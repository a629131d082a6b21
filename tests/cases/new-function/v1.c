// The old body under a new name, and a wrapper under the old one.
#include "case.h"
//# Expect: 4

NOINLINE int work(int n) { return n * 4; }

void answer(const char *line)
{
  (void)line;
  printf("%d\n", work(1));
}
