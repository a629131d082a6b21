#include "case.h"
//# Patch: ok
//# Note: b.o: initialises _Z6second
//# Expect: first 1 second 2 2
//# Reject: first 1 2
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static std::string first = "first " + std::to_string(number(1));
extern std::string second;
static int uses;

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (first + " " + second + " " + std::to_string(uses++)).c_str());
}
