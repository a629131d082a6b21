#include "case.h"
//# Patch: ok
//# Expect: 5 106

static inline __attribute__((always_inline)) int next(void)
{
  static int n;

  return ++n;
}
NOINLINE int one(void) { return next(); }
NOINLINE int two(void) { return next() + 100; }

void answer(const char *line)
{
  (void)line;
  int first = one();

  printf("%d %d\n", first, two());
}
