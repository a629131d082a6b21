// A function of one file calls a new one of another, which brings a new variable.
#include "case.h"
//# Expect: 1

void answer(const char *line)
{
  (void)line;
  puts("1");
}
