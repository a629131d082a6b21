// Asked for, living variables keep their values, and that alone is no change.
#include "case.h"
//# Expect: 1 10

int counted;
int tuned = 10;

void answer(const char *line)
{
  (void)line;
  counted++;
  printf("%d %d\n", counted, tuned);
}
