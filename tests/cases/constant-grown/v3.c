#include "case.h"
//# Patch: ok
//# Expect: 1 3
//# Reject: 1 2

const int table[20] = {1, 3};
static const int *volatile stored = table;

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", stored[0], table[1]);
}
