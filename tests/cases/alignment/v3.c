#include "case.h"
//# Patch: ok
//# Expect: 5 1

char first = 1;
char narrow = 5;
static char wide __attribute__((aligned(256)));
static char *volatile widely = &wide;
static char *volatile stored = &narrow;

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", *stored, (unsigned long)widely % 256 == 0);
}
