#include "case.h"
//# Patch: ok
//# Expect: 2
//# Reject: 1

static NOINLINE void warn(int n)
{
  static int warned;

  if (!warned) {
    warned = 1;
    printf("warned again %d\n", n);
  }
}

void answer(const char *line)
{
  (void)line;
  warn(1);
  puts("2");
}
