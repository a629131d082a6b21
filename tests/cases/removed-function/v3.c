#include "case.h"
//# Patch: ok
//# Expect: back 5 1
//# Reject: kept

static NOINLINE int helper(int n) { return n + 4; }
static int (*volatile stored)(int);

void answer(const char *line)
{
  (void)line;
  printf("back %d %d\n", stored(1), stored == helper);
}
