#include "case.h"
//# Patch: refuse nameless-state
//# Expect: 2 2 4

int shared;
char room[4];
int *other(void);
static volatile int one = 1;
NOINLINE int unrelated(void) { return one; }

void answer(const char *line)
{
  (void)line;
  shared += unrelated();
  printf("%d/%d %d\n", shared, *other(), (int)sizeof room);
}
