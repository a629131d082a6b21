// A function that the kernel calls, and one that exit calls.
#include "case.h"
//# Expect: signal 10

#include <signal.h>
static volatile int got;
static NOINLINE void handle(int s) { got = s * 1; }
static void (*volatile handler)(int) = handle;

void answer(const char *line)
{
  (void)line;
  if (!got)
    signal(SIGUSR1, handler);
  raise(SIGUSR1);
  printf("signal %d\n", got);
}
