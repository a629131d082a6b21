// Pointers past the end, negative offsets, addresses inside arrays and structs, in code and in data.
#include "case.h"
//# Expect: 10 4 -1 7

static int numbers[4] = {1, 2, 3, 4};
static struct { char pad[12]; int value; } record = {"pad", 7};
static int *const last = &numbers[3];
static int *volatile inside = &record.value;
NOINLINE int sum(void)
{
  int s = 0;

  for (int *p = numbers; p < numbers + LENGTH(numbers); p++)
    s += *p;
  return s;
}
NOINLINE int before(int n) { return numbers[n - 4] - 2; }

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d %d\n", sum(), *last, before(4), *inside);
}
