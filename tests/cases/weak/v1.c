// A weak function that another file overrides: the strong one is what runs, and what is patched.
#include "case.h"
//# Expect: strong 1, default 1

__attribute__((weak)) int hook(void) { return 100; }
__attribute__((weak)) int fallback(void) { return 1; }

void answer(const char *line)
{
  (void)line;
  printf("strong %d, default %d\n", hook(), fallback());
}
