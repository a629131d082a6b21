#include "case.h"
//# Patch: ok
//# Note: is back and goes on with the value it had
//# Expect: first 1 10
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static std::string first = "first " + std::to_string(number(1));
static int plain = 5;

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (first + " " + std::to_string(++plain)).c_str());
}
