#include "case.h"
//# Patch: ok
//# Expect: 3/3 9

int shared;

int *other(void);
void answer(const char *line)
{
  (void)line;
  shared++;
  printf("%d/%d %d\n", shared, *other(), shared * 3);
}
