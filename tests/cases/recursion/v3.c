#include "case.h"
//# Patch: ok
//# Stdin: on
//# Expect: resumed on
//# Expect: deep 3241
//# Stdin: 3
//# Expect: 3
//# Reject: deep 16

static NOINLINE int fib(int n)
{
  if (n < 2)
    return 1;
  return fib(n - 1) + fib(n - 2);
}

static NOINLINE int deep(int n)
{
  if (n == 2)
    printf("resumed %s\n", wait_here());
  int below = n ? deep(n - 1) : 0;

  return n ? below * 2 + (below & 1) + 1 : 201;
}

void answer(const char *line)
{
  if (!strncmp(line, "deep", 4))
    printf("deep %d\n", deep(atoi(line + 4)));
  else
    printf("%d\n", fib(atoi(line)));
}
