// Functions that macros make, many at once.
#include "case.h"
//# Expect: open 1 close 2

#define CALL(name, n) static NOINLINE int do_##name(void) { return n; } \
  int sys_##name(void) { return do_##name(); }
CALL(open, 1)
CALL(close, 2)

void answer(const char *line)
{
  (void)line;
  printf("open %d close %d\n", sys_open(), sys_close());
}
