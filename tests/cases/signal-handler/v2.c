#include "case.h"
//# Patch: ok
//# Expect: signal 20
//# Reject: signal 10

#include <signal.h>
static volatile int got;
static NOINLINE void handle(int s) { got = s * 2; }
static void (*volatile handler)(int) = handle;

void answer(const char *line)
{
  (void)line;
  if (!got)
    signal(SIGUSR1, handler);
  raise(SIGUSR1);
  printf("signal %d\n", got);
}
