// Several static locals of one name in one function; they change together, and one of them goes.
#include "case.h"
//# Expect: 1 10
//# Stdin: again
//# Expect: 2 20

NOINLINE void f(void)
{
  {
    static int n;
    n += 1;
    printf("%d ", n);
  }
  {
    static int n;
    n += 10;
    printf("%d\n", n);
  }
}

void answer(const char *line)
{
  (void)line;
  f();
}
