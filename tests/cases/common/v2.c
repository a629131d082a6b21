#include "case.h"
//# Patch: ok
//# Expect: 2/2
//# Reject: 2 2

int shared;

int *other(void);
void answer(const char *line)
{
  (void)line;
  shared++;
  printf("%d/%d\n", shared, *other());
}
