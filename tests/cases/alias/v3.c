#include "case.h"
//# Patch: ok
//# Expect [gcc|-O0]: 5 7, same 1 1
//# Expect [clang -O1|-O2|-O3|-Og|-Os]: 5 5, same 0 1

NOINLINE int real(int n) { return n + 4; }
NOINLINE int other(int n) { return n + 6; }
int weaker(int n) __attribute__((weak, alias("real")));
static int (*volatile stored)(int);
static int (*volatile stored_weak)(int);

void answer(const char *line)
{
  (void)line;
  if (!stored) {
    stored = other;
    stored_weak = weaker;
  }
  printf("%d %d, same %d %d\n", real(1), stored(1), stored == other, stored_weak == weaker);
}
