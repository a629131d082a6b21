#include "case.h"
//# Patch: ok
//# Expect: first... 2 second.
//# Stdin: again
//# Expect: first.... 3 second..

#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static thread_local std::string first = "first" + std::string(number(0), 'x');
static int uses;

NOINLINE const char *next(void)
{
  static thread_local std::string second = "second" + std::string(number(0), 'x');

  return (second += ".").c_str();
}

void answer(const char *line)
{
  (void)line;
  first += ".";
  printf("%s %d %s\n", first.c_str(), uses++, next());
}
