#include "case.h"
//# Patch: nothing
//# Expect: 5 6

NOINLINE int second(void);
static int b = 2;
static int a = 1;
NOINLINE int second(void) { return b += 2; }
NOINLINE int first(void) { return a += 2; }

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", first(), second());
}
