#include "case.h"
//# Patch: ok
//# Stdin: x
//# Expect: begin new
//# Reject: old

static NOINLINE void run(void)
{
  puts("begin new");
  printf("end new %s\n", wait_here());
}

void answer(const char *line)
{
  (void)line;
  run();
}
