#include "case.h"
//# Patch: refuse data-align
//# Expect: 5

char first = 1;
char narrow __attribute__((aligned(64))) = 5;
static char *volatile stored = &narrow;

void answer(const char *line)
{
  (void)line;
  printf("%d\n", *stored);
}
