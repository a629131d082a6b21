// The code that initialises a new object runs before the patch goes in: what it calls must not change with it.
#include "case.h"
//# Expect: 0 3
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static int uses;

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (std::to_string(uses++) + " " + std::to_string(number(3))).c_str());
}
