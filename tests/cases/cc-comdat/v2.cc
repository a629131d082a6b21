#include "case.h"
//# Patch: ok
//# Expect: 12 22
//# Reject: 3 4

#define STEP 10
inline NOINLINE int next()
{
  static int n;

  return n += STEP;
}
int other();

void answer(const char *line)
{
  (void)line;
  int first = next();

  printf("%d %d\n", first, other());
}
