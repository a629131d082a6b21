// Several names of one function: the alias gets the new body too, and pointers to both stay what they were. (Clang,
// when it optimises, stores the address of the function that the alias stands for.)
#include "case.h"
//# Expect: 2 2, same 1 1

NOINLINE int real(int n) { return n + 1; }
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
