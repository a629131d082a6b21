// A function that had code of its own goes into its callers and comes out again; its address stays.
#include "case.h"
//# Symbol [gcc]: helper
//# Expect: 2, stored 2, same 1

#define OUTLINE NOINLINE
static OUTLINE int helper(int n) { return n + 1; }
static int (*volatile stored)(int) = helper;
static int (*volatile first)(int);

void answer(const char *line)
{
  (void)line;
  if (!first)
    first = helper;
  printf("%d, stored %d, same %d\n", helper(1), stored(1), first == helper);
}
