#include "case.h"
//# Patch: ok
//# Expect: 4 40
//# Reject: 3

NOINLINE void f(void)
{
  {
    static int n;
    n += 2;
    printf("%d ", n);
  }
  {
    static int n;
    n += 20;
    printf("%d\n", n);
  }
}

void answer(const char *line)
{
  (void)line;
  f();
}
