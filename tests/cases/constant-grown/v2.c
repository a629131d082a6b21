#include "case.h"
//# Patch: refuse data-size data-type
//# Expect: 1 2

const int table[60] = {1, 3};
static const int *volatile stored = table;

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", stored[0], table[1]);
}
