#include "case.h"
//# Patch: ok
//# Expect: 104
//# Added: old_work

NOINLINE int old_work(int n) { return n * 4; }
NOINLINE int work(int n) { return old_work(n) + 100; }

void answer(const char *line)
{
  (void)line;
  printf("%d\n", work(1));
}
