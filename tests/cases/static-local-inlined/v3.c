#include "case.h"
//# Patch: ok
//# Expect: 8 110
//# Reject: 7

static inline __attribute__((always_inline)) int next(void)
{
  static int n;

  return n += 2;
}
NOINLINE int one(void) { return next(); }
NOINLINE int two(void) { return next() + 100; }

void answer(const char *line)
{
  (void)line;
  int first = one();

  printf("%d %d\n", first, two());
}
