#include "case.h"
//# Patch: ok
//# Expect: 3 4.5
//# Reject: 2 3.0

template <typename T> NOINLINE T twice(T x) { return x + x + x; }

void answer(const char *line)
{
  (void)line;
  printf("%d %.1f\n", twice(1), twice(1.5));
}
