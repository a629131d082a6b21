#include "case.h"
//# Patch: ok
//# Note: no longer initialised by code: _ZL5first
//# Expect: 9
//# Reject: first
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static int plain = 5;

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (std::to_string(++plain)).c_str());
}
