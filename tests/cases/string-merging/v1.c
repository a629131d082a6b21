// Strings that linkers merge, also as the tail of another; and a pointer to one that lives on.
#include "case.h"
//# Expect: hello world, world, hello world

static const char *kept = "hello world";
NOINLINE const char *whole(void) { return "hello world"; }
NOINLINE const char *tail(void) { return "world"; }

void answer(const char *line)
{
  (void)line;
  printf("%s, %s, %s\n", whole(), tail(), kept);
  kept = whole();
}
