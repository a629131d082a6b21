// A new function whose address is stored keeps that address in later generations.
#include "case.h"
//# Expect: none

static int (*volatile picked)(int);

void answer(const char *line)
{
  (void)line;
  puts(picked ? "some" : "none");
}
