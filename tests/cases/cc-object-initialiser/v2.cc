#include "case.h"
//# Patch: refuse dynamic-initialiser
//# Note: what initialises _ZL5first
//# Expect: first 1 7
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static std::string first = "changed " + std::to_string(number(1));
static int plain = 5;

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (first + " " + std::to_string(++plain)).c_str());
}
