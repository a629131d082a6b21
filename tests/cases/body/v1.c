// The body of a function changes, also of a static one; pointers stored before reach the new code.
#include "case.h"
//# Expect: 1: 2 and 3, stored 2

static int count;
static NOINLINE int helper(int n) { return n + 1; }
NOINLINE int exported(int n) { return n + 2; }
static int (*volatile stored)(int) = helper;

void answer(const char *line)
{
  (void)line;
  count++;
  printf("%d: %d and %d, stored %d\n", count, helper(1), exported(1), stored(1));
}
