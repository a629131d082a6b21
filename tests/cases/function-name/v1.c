// __func__ and what the compiler makes for it belong to the function.
#include "case.h"
//# Expect: in first

static NOINLINE void first(void) { printf("in %s\n", __func__); }

void answer(const char *line)
{
  (void)line;
  first();
}
