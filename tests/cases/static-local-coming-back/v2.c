#include "case.h"
//# Patch: ok
//# Expect: none

void answer(const char *line)
{
  (void)line;
  puts("none");
}
