// A variable that wants a stricter alignment than its place has is refused; a constant of its own goes along.
#include "case.h"
//# Expect: 5

char first = 1;
char narrow = 5;
static char *volatile stored = &narrow;

void answer(const char *line)
{
  (void)line;
  printf("%d\n", *stored);
}
