// Lambdas: with captures, converted to a pointer that was stored, and numbered anew.
#include "case.h"
//# Expect: 11 2

static int (*stored)(int);
NOINLINE int apply(int base)
{
  auto add = [base](int n) { return base + n; };

  if (!stored)
    stored = [](int n) { return n + 1; };
  return add(1);
}

void answer(const char *line)
{
  (void)line;
  int first = apply(10);

  printf("%d %d\n", first, stored(1));
}
