#include "case.h"
//# Patch: refuse tls-initialiser
//# Note: second
//# Expect: first.. 1

#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static thread_local std::string first = "first" + std::string(number(0), 'x');
static thread_local std::string second = "second" + std::string(number(0), 'x');
static int uses;

void answer(const char *line)
{
  (void)line;
  first += ".";
  second += ".";
  printf("%s %d\n", first.c_str(), uses++);
}
