// What is done once stays done: a flag in a function that changes.
#include "case.h"
//# Expect: warned 1
//# Expect: 1

static NOINLINE void warn(int n)
{
  static int warned;

  if (!warned) {
    warned = 1;
    printf("warned %d\n", n);
  }
}

void answer(const char *line)
{
  (void)line;
  warn(1);
  puts("1");
}
