#include "case.h"
//# Patch: ok
//# Expect: 3, 0, 50 0 0, , 0.0
//# Took: 4
//# Kept: 1

int counted;
int tuned;
int numbers[3] = {50, 60};
char text[16];
double factor;
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
