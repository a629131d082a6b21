// A function that the compiler put into its callers: every one of them is replaced.
#include "case.h"
//# Expect: 2 3 6

static inline int step(int n) { return n + 1; }
NOINLINE int once(int n) { return step(n); }
NOINLINE int twice(int n) { return step(step(n)); }
static int (*volatile stored)(int) = once;

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d\n", stored(1), twice(1), step(5));
}
