#include "case.h"
//# Patch: ok
//# Without: b
//# Expect: 2
//# Reject: 1

NOINLINE int number(void) { return 2; }
static int (*volatile stored)(void);

void answer(const char *line)
{
  (void)line;
  if (!stored)
    stored = number;
  printf("%d\n", stored());
}
