// A static local of a function that is inlined into two others, which share it.
#include "case.h"
//# Expect: 1 2
//# Stdin: again
//# Expect: 3 4

static inline __attribute__((always_inline)) int next(void)
{
  static int n;

  return ++n;
}
NOINLINE int one(void) { return next(); }
NOINLINE int two(void) { return next(); }

void answer(const char *line)
{
  (void)line;
  int first = one();

  printf("%d %d\n", first, two());
}
