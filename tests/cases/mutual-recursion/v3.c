#include "case.h"
//# Patch: ok
//# Stdin: on
//# Expect: resumed on
//# Expect: even 70
//# Stdin: 1
//# Expect: even 50
//# Reject: even 1

int odd(int n);
NOINLINE int even(int n)
{
  if (n == 4)
    printf("resumed %s\n", wait_here());
  return n ? odd(n - 1) : 70;
}
void answer(const char *line) { printf("even %d\n", even(atoi(line))); }
