// Tentative definitions, also of one name in two files.
#include "case.h"
//# Expect: 1 1

int shared;

int *other(void);
void answer(const char *line)
{
  (void)line;
  shared++;
  printf("%d %d\n", shared, *other());
}
