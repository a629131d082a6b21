#include "case.h"
//# Patch: ok
//# Stdin: go
//# Expect: back 0
//# Stdin: 5
//# Expect: back 105
//# Reject: back 6

#include <setjmp.h>
static jmp_buf place;
static NOINLINE void leave(int n) { longjmp(place, n + 100); }
NOINLINE void middle(void)
{
  const char *line = wait_here();

  leave(atoi(line));
}
void answer(const char *line)
{
  int n = setjmp(place);

  printf("back %d\n", n);
  if (!n && !strcmp(line, "go"))
    middle();
}
