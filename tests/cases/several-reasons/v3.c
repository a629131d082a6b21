#include "case.h"
//# Patch: refuse tls-changed
//# Expect: 3 5

int counter;
__thread int mine = 6;
NOINLINE int next(void) { return (int)++counter; }

void answer(const char *line)
{
  (void)line;
  int n = next();

  printf("%d %d\n", n, mine);
}
