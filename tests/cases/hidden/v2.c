#include "case.h"
//# Patch: ok
//# Expect: 12 23 2

__attribute__((visibility("hidden"), noinline)) int inner(int n) { return n + 11; }
__attribute__((visibility("protected"), noinline)) int guarded(int n) { return n + 22; }
__attribute__((visibility("hidden"))) int count;

void answer(const char *line)
{
  (void)line;
  count++;
  printf("%d %d %d\n", inner(1), guarded(1), count);
}
