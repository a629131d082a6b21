// A function that calls itself, also where the assembler needs no relocation for that: calls made from an old frame
// run the new code.
#include "case.h"
//# Stdin: 10
//# Expect: 55

static NOINLINE int fib(int n)
{
  if (n < 2)
    return n;
  return fib(n - 1) + fib(n - 2);
}

static NOINLINE int deep(int n)
{
  if (n == 2)
    printf("resumed %s\n", wait_here());
  int below = n ? deep(n - 1) : 0;

  return n ? below * 2 + (below & 1) + 1 : 100;
}

void answer(const char *line)
{
  if (!strncmp(line, "deep", 4))
    printf("deep %d\n", deep(atoi(line + 4)));
  else
    printf("%d\n", fib(atoi(line)));
}
