// Two functions of two files that call each other; a patch comes while both are on the stack.
#include "case.h"
//# Stdin: 3
//# Expect: even 0

int odd(int n);
NOINLINE int even(int n)
{
  if (n == 4)
    printf("resumed %s\n", wait_here());
  return n ? odd(n - 1) : 1;
}
void answer(const char *line) { printf("even %d\n", even(atoi(line))); }
