// An inline function that two files define: the image has one, and its static local one value.
#include "case.h"
//# Expect: 1 2

#define STEP 1
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
