// A weak reference to what does not exist becomes a function.
#include "case.h"
//# Expect: absent

__attribute__((weak)) int extra(void);

void answer(const char *line)
{
  (void)line;
  printf(extra ? "present %d\n" : "absent\n", extra ? extra() : 0);
}
