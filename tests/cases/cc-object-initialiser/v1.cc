// What initialises a living object changed, or a living variable is initialised by code now: that code must not run.
#include "case.h"
//# Expect: first 1 6
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
