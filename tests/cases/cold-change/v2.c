#include "case.h"
//# Patch: ok
//# Stdin: 1
//# Expect: 101
//# Stdin: -1
//# Expect: below zero -1, 199
//# Reject: negative
//# Changed [gcc -O0|-O2]: parse

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
  return n + failures * 100;
}
void answer(const char *line)
{
  printf("%d\n", parse(atoi(line)));
}
