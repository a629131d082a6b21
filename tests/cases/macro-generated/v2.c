#include "case.h"
//# Patch: ok
//# Expect: open 11 close 12

#define CALL(name, n) static NOINLINE int do_##name(void) { return n + 10; } \
  int sys_##name(void) { return do_##name(); }
CALL(open, 1)
CALL(close, 2)

void answer(const char *line)
{
  (void)line;
  printf("open %d close %d\n", sys_open(), sys_close());
}
