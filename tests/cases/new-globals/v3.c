#include "case.h"
//# Patch: ok
//# Expect: n 13
//# Expect: n 14

int next_number(void);

void answer(const char *line)
{
  (void)line;
  printf("n %d\n", next_number());
  printf("n %d\n", next_number());
}
