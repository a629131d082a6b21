#include "case.h"
//# Patch: ok
//# Stdin: y
//# Expect: end new y
//# Stdin: x
//# Expect: begin third
//# Stdin: z
//# Expect: end third z

static NOINLINE void run(void)
{
  puts("begin third");
  printf("end third %s\n", wait_here());
}

void answer(const char *line)
{
  (void)line;
  run();
}
