#include "case.h"
//# Patch: ok
//# Expect: 1 102 200 0 0 300 400
//# Note: numbers has 28 bytes now, it had 20

int numbers[] = {0, 100, 200, 0, 0, 300, 400};
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
