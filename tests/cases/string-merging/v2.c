#include "case.h"
//# Patch: ok
//# Expect: goodbye world, world, hello world
//# Reject: hello world, world

static const char *kept = "hello world";
NOINLINE const char *whole(void) { return "goodbye world"; }
NOINLINE const char *tail(void) { return "world"; }

void answer(const char *line)
{
  (void)line;
  printf("%s, %s, %s\n", whole(), tail(), kept);
  kept = whole();
}
