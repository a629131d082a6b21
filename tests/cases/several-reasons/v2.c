#include "case.h"
//# Patch: refuse data-size data-type tls-changed
//# Expect: 2 5

long counter;
__thread int mine = 6;
NOINLINE int next(void) { return (int)++counter; }

void answer(const char *line)
{
  (void)line;
  int n = next();

  printf("%d %d\n", n, mine);
}
