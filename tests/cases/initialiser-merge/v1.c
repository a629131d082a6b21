// A changed initialiser is for who still has the old one: variable by variable, and element by element in an array.
#include "case.h"
//# Expect: 1, 10, 5 0 7, text, 1.5

int counted;
int tuned = 10;
int numbers[3] = {5, 6, 7};
char text[16] = "text";
double factor = 1.5;
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
