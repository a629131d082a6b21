#include "case.h"
//# Patch: ok
//# Stdin: 4
//# Expect: 14 6, member 7 3, stored 5
//# Reject: 5, member 7, stored 5
//# Note: which returns struct Many

struct Many { long values[9]; };
struct Counter { int by; NOINLINE Many next(int n); };
NOINLINE Many count(int n) { return {{n + 10, n, n, n, n, n, n, n, n + 2}}; }
NOINLINE Many Counter::next(int n) { return {{n + by, 0, 0, 0, 0, 0, 0, 0, by}}; }
static int (*volatile stored)(int);
static Counter counter = {3};

void answer(const char *line)
{
  int n = atoi(line);
  Many many = count(n), next = counter.next(n);

  printf("%ld %ld, member %ld %ld, stored %d\n", many.values[0], many.values[8],
    next.values[0], next.values[8], stored(n));
}
