// An array grows within its padding and shrinks: the new elements take their initial values, the old ones keep theirs.
#include "case.h"
//# Expect: 1 101 200 0 0

int numbers[] = {0, 100, 200, 0, 0};
static int *volatile stored = numbers;

void answer(const char *line)
{
  (void)line;
  stored[1]++;
  printf("%d", 1);
  for (int i = 1; i < LENGTH(numbers); i++)
    printf(" %d", numbers[i]);
  puts("");
}
