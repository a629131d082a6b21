#include "case.h"
//# Patch: ok
//# Expect: 4 4 4
//# Reject: 3

int shared;
char room[4];
int *other(void);
static volatile int one = 1;
NOINLINE int unrelated(void) { return one + 1; }

void answer(const char *line)
{
  (void)line;
  shared += unrelated();
  printf("%d %d %d\n", shared, *other(), (int)sizeof room);
}
