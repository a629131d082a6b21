// A unit has one function that initialises its thread-locals, and threads that have run it do not again: a new one
// beside others is refused.
#include "case.h"
//# Expect: first. 0

#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static thread_local std::string first = "first" + std::string(number(0), 'x');
static int uses;

void answer(const char *line)
{
  (void)line;
  first += ".";
  printf("%s %d\n", first.c_str(), uses++);
}
