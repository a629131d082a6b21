#include "case.h"
//# Patch: ok
//# Expect: strong 1, default 2
//# Reject: default 1

__attribute__((weak)) int hook(void) { return 200; }
__attribute__((weak)) int fallback(void) { return 2; }

void answer(const char *line)
{
  (void)line;
  printf("strong %d, default %d\n", hook(), fallback());
}
