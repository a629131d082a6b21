#include "case.h"
//# Patch: ok
//# Expect: 11
//# Expect: 12

int next_number(void);

void answer(const char *line)
{
  (void)line;
  printf("%d\n", next_number());
  printf("%d\n", next_number());
}
