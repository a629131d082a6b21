// Hidden and protected functions and data.
#include "case.h"
//# Expect: 2 3 1

__attribute__((visibility("hidden"), noinline)) int inner(int n) { return n + 1; }
__attribute__((visibility("protected"), noinline)) int guarded(int n) { return n + 2; }
__attribute__((visibility("hidden"))) int count;

void answer(const char *line)
{
  (void)line;
  count++;
  printf("%d %d %d\n", inner(1), guarded(1), count);
}
