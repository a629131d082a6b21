#include "case.h"
//# Patch: ok
//# Expect: 30
//# Reject: 7

static NOINLINE int clamp(int n)
{
  int result;

  __asm__("movl %1, %0\n\tcmpl $30, %0\n\tjle 1f\n\tmovl $30, %0\n1:" : "=&r"(result) : "r"(n) : "cc");
  return result;
}
static int (*volatile stored)(int) = clamp;

void answer(const char *line)
{
  (void)line;
  printf("%d\n", stored(50));
}
