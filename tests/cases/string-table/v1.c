// Constant tables of strings and of function pointers take new content where they are.
#include "case.h"
//# Stdin: 1
//# Expect: one 11, first zero
//# Stdin: 2
//# Expect: two 22, first zero

static NOINLINE int tens(int n) { return n * 11; }
static NOINLINE int hundreds(int n) { return n * 100; }
static NOINLINE int unused(int n) { return n; }
const char *const words[] = {"zero", "one", "two"};
int (*const table[])(int) = {unused, tens, tens};
static const char *const *volatile stored = words;
void answer(const char *line)
{
  int n = atoi(line);

  printf("%s %d, first %s\n", stored[n], table[n](n) + 0 * hundreds(n), stored[0]);
}
