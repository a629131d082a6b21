#include "case.h"
//# Patch: ok
//# Expect: 12 9
//# Reject: 12 2

static int (*stored)(int);
NOINLINE int apply(int base)
{
  auto add = [base](int n) { return base + n + 1; };

  if (!stored)
    stored = [](int n) { return n + 8; };
  return add(1);
}

void answer(const char *line)
{
  (void)line;
  int first = apply(10);

  printf("%d %d\n", first, stored(1));
}
