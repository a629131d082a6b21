#include "case.h"
//# Patch: refuse dynamic-initialiser
//# Note: second
//# Expect: first 1 1
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static std::string first = "first " + std::to_string(number(1));
static std::string second = "second " + std::to_string(number(2));
static int uses;

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (first + " " + second + " " + std::to_string(uses++)).c_str());
}
