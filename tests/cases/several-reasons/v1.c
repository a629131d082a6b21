// All reasons of a refusal are told, and nothing changes; then each is undone.
#include "case.h"
//# Expect: 1 5

int counter;
__thread int mine = 5;
NOINLINE int next(void) { return ++counter; }

void answer(const char *line)
{
  (void)line;
  int n = next();

  printf("%d %d\n", n, mine);
}
