// Two functions of the same content, which the compiler may fold into one: one of them changes, and changes back.
#include "case.h"
//# Flags [gcc]: -fipa-icf
//# Expect: 2 2 2

NOINLINE int left(int n) { return n * 3 - 1; }
NOINLINE int right(int n) { return n * 3 - 1; }
static NOINLINE int third(int n) { return n * 3 - 1; }
static int (*volatile stored)(int) = right;

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d\n", left(1), stored(1), third(1));
}
