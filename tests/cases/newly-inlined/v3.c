#include "case.h"
//# Patch: ok
//# Expect: 4, stored 4, same 1

#define OUTLINE NOINLINE
static OUTLINE int helper(int n) { return n + 3; }
static int (*volatile stored)(int) = helper;
static int (*volatile first)(int);

void answer(const char *line)
{
  (void)line;
  if (!first)
    first = helper;
  printf("%d, stored %d, same %d\n", helper(1), stored(1), first == helper);
}
