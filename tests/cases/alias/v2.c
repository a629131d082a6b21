#include "case.h"
//# Patch: ok
//# Expect: 5 5, same 1 1
//# Reject: 2 2

NOINLINE int real(int n) { return n + 4; }
int other(int n) __attribute__((alias("real")));
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
