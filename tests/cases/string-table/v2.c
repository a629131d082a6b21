#include "case.h"
//# Patch: ok
//# Stdin: 1
//# Expect: one 11, first null
//# Stdin: 2
//# Expect: deux 200, first null
//# Reject: two

static NOINLINE int tens(int n) { return n * 11; }
static NOINLINE int hundreds(int n) { return n * 100; }
static NOINLINE int unused(int n) { return n; }
const char *const words[] = {"null", "one", "deux"};
int (*const table[])(int) = {unused, tens, hundreds};
static const char *const *volatile stored = words;
void answer(const char *line)
{
  int n = atoi(line);

  printf("%s %d, first %s\n", stored[n], table[n](n) + 0 * hundreds(n), stored[0]);
}
