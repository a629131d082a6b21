#include "case.h"
//# Patch: ok
//# Expect: 24 8 0 7
//# Reject: 10

static int numbers[4] = {1, 2, 3, 4};
static struct { char pad[12]; int value; } record = {"pad", 7};
static int *const last = &numbers[3];
static int *volatile inside = &record.value;
NOINLINE int sum(void)
{
  int s = 0;

  for (int *p = numbers; p < numbers + LENGTH(numbers); p++)
    s += *p * 2 + 1;
  return s;
}
NOINLINE int before(int n) { return numbers[n - 4] - 1; }

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d %d\n", sum(), *last * 2, before(4), *inside);
}
