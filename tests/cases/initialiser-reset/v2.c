#include "case.h"
//# Init: reset
//# Patch: ok
//# Expect: 41 20
//# Reject: 2 10

int counted = 40;
int tuned = 20;

void answer(const char *line)
{
  (void)line;
  counted++;
  printf("%d %d\n", counted, tuned);
}
