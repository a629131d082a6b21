// A function that is on the stack finishes in its old code; the next call runs the new.
#include "case.h"
//# Stdin: x
//# Expect: begin old
//# Stdin: y
//# Expect: end old y

static NOINLINE void run(void)
{
  puts("begin old");
  printf("end old %s\n", wait_here());
}

void answer(const char *line)
{
  (void)line;
  run();
}
