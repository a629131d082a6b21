#include "case.h"
//# Patch: ok
//# Stdin: 1
//# Expect: 2001
//# Stdin: -1
//# Expect: below zero -1, 2999
//# Reject: 201

static int failures;
static __attribute__((cold, noinline)) void complain(const char *what, int n)
{
  printf("%s %d, ", what, n);
  failures++;
}
NOINLINE int parse(int n)
{
  if (n < 0)
    complain("below zero", n);
  return n + failures * 1000;
}
void answer(const char *line)
{
  printf("%d\n", parse(atoi(line)));
}
