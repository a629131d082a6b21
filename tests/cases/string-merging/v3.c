#include "case.h"
//# Patch: ok
//# Expect: goodbye world, bye world, goodbye world

static const char *kept = "hello world";
NOINLINE const char *whole(void) { return "goodbye world"; }
NOINLINE const char *tail(void) { return "bye world"; }

void answer(const char *line)
{
  (void)line;
  printf("%s, %s, %s\n", whole(), tail(), kept);
  kept = whole();
}
