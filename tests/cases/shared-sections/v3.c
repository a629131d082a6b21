#include "case.h"
//# Patch: ok
//# Expect: 103 108 111 1
//# Reject: 107

static int first = 1;
static int fresh = 1;
static int second = 6;
static NOINLINE int helper(int n) { return n + 102; }
static NOINLINE int outer(int n) { return helper(n); }
NOINLINE int third(void) { return helper(9); }
static int (*volatile stored)(int) = outer;
static int *volatile pointer = &second;

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d %d\n", stored(first), stored(*pointer), third(), fresh++);
}
