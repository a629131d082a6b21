// A function gets a half that is out of the way (.cold).
#include "case.h"
//# No symbol: parse\.cold.*
//# Stdin: 1
//# Expect: 1
//# Stdin: -1
//# Expect: -1

static int failures;
static __attribute__((cold, noinline)) void complain(const char *what, int n)
{
  printf("%s %d, ", what, n);
  failures++;
}
NOINLINE int parse(int n) { return n + failures * 100; }
void answer(const char *line)
{
  if (!strcmp(line, "never"))
    complain(line, 0);
  printf("%d\n", parse(atoi(line)));
}
