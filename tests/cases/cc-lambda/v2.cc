#include "case.h"
//# Patch: ok
//# Expect: 12 2
//# Reject: 11

static int (*stored)(int);
NOINLINE int apply(int base)
{
  auto add = [base](int n) { return base + n + 1; };

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
