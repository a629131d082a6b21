#include "case.h"
//# Patch: ok
//# Expect: 2: 11 and 21, stored 11
//# Reject: stored 2
//# Changed [-O0|-O2]: exported helper

static int count;
static NOINLINE int helper(int n) { return n + 10; }
NOINLINE int exported(int n) { return n + 20; }
static int (*volatile stored)(int) = helper;

void answer(const char *line)
{
  (void)line;
  count++;
  printf("%d: %d and %d, stored %d\n", count, helper(1), exported(1), stored(1));
}
