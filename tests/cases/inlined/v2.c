#include "case.h"
//# Patch: ok
//# Expect: 11 21 15
//# Reject: 2 3

static inline int step(int n) { return n + 10; }
NOINLINE int once(int n) { return step(n); }
NOINLINE int twice(int n) { return step(step(n)); }
static int (*volatile stored)(int) = once;

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d\n", stored(1), twice(1), step(5));
}
