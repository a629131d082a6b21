#include "case.h"
//# Patch: ok
//# Expect: 15 1

NOINLINE int risky(int n)
{
  __asm__ volatile("1: nop\n\t.pushsection fixups, \"aw\"\n\t.quad 1b\n\t.popsection" ::: "memory");
  return n + 4;
}
NOINLINE int other(int n) { return n + 10; }
extern const long __start_fixups[], __stop_fixups[];

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", risky(other(1)), (int)(__stop_fixups - __start_fixups));
}
