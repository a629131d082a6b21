// A changed signature in C makes a new function under the old name: new callers call it, calls under way and stored
// pointers keep the old one.
#include "case.h"
//# Stdin: 1
//# Expect: 2, stored 2

NOINLINE int step(int n) { return n + 1; }
static int (*volatile stored)(int);
void answer(const char *line)
{
  int n = atoi(line);

  if (!stored)
    stored = step;
  printf("%d, stored %d\n", step(n), stored(n));
}
