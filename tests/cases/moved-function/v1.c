// A function moves to another file of the program.
#include "case.h"
//# Expect: 3, same 1

NOINLINE int moving(int n) { return n + 2; }
int other(int n);
static int (*volatile stored)(int);

void answer(const char *line)
{
  (void)line;
  if (!stored)
    stored = moving;
  printf("%d, same %d\n", stored(1), stored == moving);
}
