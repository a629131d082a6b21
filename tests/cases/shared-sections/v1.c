// All functions in one section and all data in another, as third-party objects have them: references through sections,
// calls without relocation.
#include "case.h"
//# Flags: -fno-function-sections -fno-data-sections
//# Expect: 3 7 11

static int first = 1;
static int second = 5;
static NOINLINE int helper(int n) { return n + 2; }
static NOINLINE int outer(int n) { return helper(n); }
NOINLINE int third(void) { return helper(9); }
static int (*volatile stored)(int) = outer;
static int *volatile pointer = &second;

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d\n", stored(first), stored(*pointer), third());
}
