#include "case.h"
//# Patch: ok
//# Expect: 6, same 1
//# Reject: 3, same

int moving(int n);
int other(int n);
static int (*volatile stored)(int);

void answer(const char *line)
{
  (void)line;
  if (!stored)
    stored = moving;
  printf("%d, same %d\n", stored(1), stored == moving);
}
