#include "case.h"
//# Patch: refuse dynamic-initialiser
//# Note: which lives in the process, would be initialised by code
//# Expect: 7
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static int plain = number(50);

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (std::to_string(++plain)).c_str());
}
