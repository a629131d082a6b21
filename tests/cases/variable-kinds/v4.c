#include "case.h"
//# Patch: ok
//# Expect: 5 6 8
//# Reject: 7

int variable = 5;
const int constant = 6;
NOINLINE int function(void) { return 8; }
static const int *volatile see = &constant;
static int *volatile seen = &variable;

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d\n", *seen, *see, function());
}
