#include "case.h"
//# Patch: ok
//# Stdin: 5
//# Expect: even 50
//# Reject: even 0
//# Stdin: 6

int odd(int n);
NOINLINE int even(int n)
{
  if (n == 4)
    printf("resumed %s\n", wait_here());
  return n ? odd(n - 1) : 1;
}
void answer(const char *line) { printf("even %d\n", even(atoi(line))); }
