#include "case.h"
//# Patch: ok
//# Expect: kept 2
//# Note: no longer in the source: helper

static int (*volatile stored)(int);

void answer(const char *line)
{
  (void)line;
  printf("kept %d\n", stored(1));
}
