#include "case.h"
//# Patch: ok
//# Expect: 8 second 2
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static std::string second = "second " + std::to_string(number(2));
static int plain = 5;

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (std::to_string(++plain) + " " + second).c_str());
}
