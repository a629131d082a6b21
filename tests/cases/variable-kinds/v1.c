// A variable that becomes a constant, a constant that becomes a variable, a function that becomes a variable: refused.
#include "case.h"
//# Expect: 5 6 7

int variable = 5;
const int constant = 6;
NOINLINE int function(void) { return 7; }
static const int *volatile see = &constant;
static int *volatile seen = &variable;

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d\n", *seen, *see, function());
}
