// A function leaves the source; who holds a pointer to it goes on using the old code. It may come back.
#include "case.h"
//# Expect: stored 2

static NOINLINE int helper(int n) { return n + 1; }
static int (*volatile stored)(int);

void answer(const char *line)
{
  (void)line;
  if (!stored)
    stored = helper;
  printf("stored %d\n", stored(1));
}
