#include "case.h"
//# Patch: ok
//# Expect: 2 30
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return 10 * n + offset; }
static int uses;

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (std::to_string(uses++) + " " + std::to_string(number(3))).c_str());
}
