#include "case.h"
//# Patch: refuse dynamic-initialiser
//# Expect: first 1 8
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static std::string first = "first " + std::to_string(number(1));
static int plain = number(50);

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (first + " " + std::to_string(++plain)).c_str());
}
