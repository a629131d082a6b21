#include "case.h"
//# Patch: ok
//# Expect: 1 103 250 0 0
//# Reject: 300

int numbers[] = {0, 100, 250, 0, 0};
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
