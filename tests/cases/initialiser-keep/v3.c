#include "case.h"
//# Init: keep
//# Patch: ok
//# Expect: 3, 10
//# Reject: 3 10
//# Note: tuned keeps its live value

int counted = 40;
int tuned = 30;

void answer(const char *line)
{
  (void)line;
  counted++;
  printf("%d, %d\n", counted, tuned);
}
