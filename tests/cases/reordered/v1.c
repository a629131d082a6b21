// Functions and variables in another order: nothing that runs changes.
#include "case.h"
//# Expect: 3 4

static int a = 1;
static int b = 2;
NOINLINE int first(void) { return a += 2; }
NOINLINE int second(void) { return b += 2; }

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", first(), second());
}
