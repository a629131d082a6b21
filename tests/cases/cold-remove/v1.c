// The half that is out of the way goes, and its function with it.
#include "case.h"
//# Symbol [gcc -O2|-O3]: parse\.cold.*
//# Stdin: 1
//# Expect: 1
//# Stdin: -1
//# Expect: negative -1, 99

static int failures;
static __attribute__((cold, noinline)) void complain(const char *what, int n)
{
  printf("%s %d, ", what, n);
  failures++;
}
NOINLINE int parse(int n)
{
  if (n < 0)
    complain("negative", n);
  return n + failures * 100;
}
void answer(const char *line)
{
  if (!strcmp(line, "never"))
    complain(line, 0);
  printf("%d\n", parse(atoi(line)));
}
