#include "case.h"
//# Patch: ok
//# Expect: present 6
//# Reject: absent

__attribute__((weak)) int extra(void);

void answer(const char *line)
{
  (void)line;
  printf(extra ? "present %d\n" : "absent\n", extra ? extra() : 0);
}
