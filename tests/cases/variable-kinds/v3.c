#include "case.h"
//# Patch: refuse kind
//# Expect: 5 6 7

int variable = 5;
const int constant = 6;
int function = 7;
static const int *volatile see = &constant;
static int *volatile seen = &variable;

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d\n", *seen, *see, function);
}
