#include "case.h"
//# Patch: ok
//# Expect: in second
//# Reject: first

static NOINLINE void second(void) { printf("in %s\n", __func__); }

void answer(const char *line)
{
  (void)line;
  second();
}
