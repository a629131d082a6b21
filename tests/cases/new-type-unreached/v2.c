#include "case.h"
//# Patch: ok
//# Expect: two
//# Reject: one

void answer(const char *line)
{
  (void)line;
  puts("two");
}
