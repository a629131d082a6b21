// Overloads and changed signatures are other functions by their mangled names.
#include "case.h"
//# Expect: 1

NOINLINE int pick(int n) { return n; }
static int (*volatile stored)(int) = pick;

void answer(const char *line)
{
  (void)line;
  printf("%d\n", pick(1));
}
