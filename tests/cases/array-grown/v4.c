#include "case.h"
//# Patch: refuse data-size data-type
//# Expect: 1 104 250 0 0

int numbers[60] = {1, 2, 3, 4};
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
