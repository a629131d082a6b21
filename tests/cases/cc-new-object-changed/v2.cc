#include "case.h"
//# Patch: refuse initialised-by-changed
//# Note: is initialised before the patch goes in, by code that reaches _Z6numberi
//# Expect: 1 3
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return 10 * n + offset; }
static std::string second = "second " + std::to_string(number(2));
static int uses;

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (std::to_string(uses++) + " " + std::to_string(number(3)) + second).c_str());
}
