#include "case.h"
//# Patch: ok
//# Expect: 3 30 second 20
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return 10 * n + offset; }
static std::string second = "second " + std::to_string(number(2));
static int uses;

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (std::to_string(uses++) + " " + std::to_string(number(3)) + " " + second).c_str());
}
