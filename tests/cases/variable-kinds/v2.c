#include "case.h"
//# Patch: refuse data-kind data-type
//# Expect: 5 6 7

int variable = 5;
int constant = 6;
NOINLINE int function(void) { return 7; }
static const int *volatile see = &constant;
static int *volatile seen = &variable;

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d\n", *seen, *see, function());
}
