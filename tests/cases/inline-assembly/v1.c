// Assembly inside a function, with a jump and a constant of its own.
#include "case.h"
//# Expect: 7

static NOINLINE int clamp(int n)
{
  int result;

  __asm__("movl %1, %0\n\tcmpl $7, %0\n\tjle 1f\n\tmovl $7, %0\n1:" : "=&r"(result) : "r"(n) : "cc");
  return result;
}
static int (*volatile stored)(int) = clamp;

void answer(const char *line)
{
  (void)line;
  printf("%d\n", stored(50));
}
