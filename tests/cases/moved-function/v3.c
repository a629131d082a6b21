#include "case.h"
//# Patch: ok
//# Expect: 7, same 1

NOINLINE int moving(int n) { return n + 6; }
int other(int n);
static int (*volatile stored)(int);

void answer(const char *line)
{
  (void)line;
  if (!stored)
    stored = moving;
  printf("%d, same %d\n", stored(1), stored == moving);
}
