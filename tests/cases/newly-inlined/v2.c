#include "case.h"
//# Patch: ok
//# Expect: 3, stored 3, same 1
//# Reject: stored 2

#define OUTLINE inline __attribute__((always_inline))
static OUTLINE int helper(int n) { return n + 2; }
static int (*volatile stored)(int) = helper;
static int (*volatile first)(int);

void answer(const char *line)
{
  (void)line;
  if (!first)
    first = helper;
  printf("%d, stored %d, same %d\n", helper(1), stored(1), first == helper);
}
