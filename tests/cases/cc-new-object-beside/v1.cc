// A new object in a unit whose initialisation made others: the compiler has one function for all of them.
#include "case.h"
//# Expect: first 1 0
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static std::string first = "first " + std::to_string(number(1));
static int uses;

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (first + " " + std::to_string(uses++)).c_str());
}
