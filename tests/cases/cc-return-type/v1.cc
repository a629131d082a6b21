// A mangled name does not tell what a function returns: one that returns an int, and then a struct in memory,
// is another function. A pointer that was stored stays with the old one.
#include "case.h"
//# Stdin: 4
//# Expect: 5, member 7, stored 5

struct Counter { int by; NOINLINE int next(int n); };
NOINLINE int count(int n) { return n + 1; }
NOINLINE int Counter::next(int n) { return n + by; }
static int (*volatile stored)(int);
static Counter counter = {3};

void answer(const char *line)
{
  int n = atoi(line);

  if (!stored)
    stored = count;
  printf("%d, member %d, stored %d\n", count(n), counter.next(n), stored(n));
}
