#include "case.h"
//# Patch: ok
//# Expect: 104 5

int counter;
__thread int mine = 5;
NOINLINE int next(void) { return ++counter + 100; }

void answer(const char *line)
{
  (void)line;
  int n = next();

  printf("%d %d\n", n, mine);
}
