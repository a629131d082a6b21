// With -fcommon, which leaves the place to the linker, a variable has no identity that lasts: what uses it is refused.
#include "case.h"
//# Flags: -fcommon
//# Expect: 1 1 4

int shared;
char room[4];
int *other(void);
static volatile int one = 1;
NOINLINE int unrelated(void) { return one; }

void answer(const char *line)
{
  (void)line;
  shared += unrelated();
  printf("%d %d %d\n", shared, *other(), (int)sizeof room);
}
