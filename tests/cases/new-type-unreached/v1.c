// A type whose code has never been in the process may change: no object of it can exist. Then it is as any other.
#include "case.h"
//# Expect: one

void answer(const char *line)
{
  (void)line;
  puts("one");
}
