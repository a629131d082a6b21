#include "case.h"
//# Patch: ok
//# Expect: 2, 20, 50 0 70, new, 2.5
//# Took: 5
//# Kept: 2

int counted = 40;
int tuned = 20;
int numbers[3] = {50, 60, 70};
char text[16] = "new";
double factor = 2.5;
struct pair { int a, b; } pair = {1, 2};
static int *volatile stored = numbers;

void answer(const char *line)
{
  (void)line;
  counted++;
  stored[1] = 0;
  pair.a += 0 * counted;
  printf("%d, %d, %d %d %d, %s, %.1f\n", counted, tuned, numbers[0], numbers[1], numbers[2], text, factor);
}
