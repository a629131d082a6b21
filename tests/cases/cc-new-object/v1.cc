// New objects that code initialises: once, by the patch that brings them, and destroyed at the end of the program.
#include "case.h"
//# Expect: 1 2

#include <map>
#include <string>

NOINLINE int number(int n) { static volatile int offset = 0; return n + offset; }

void answer(const char *line)
{
  std::string all = line;

  printf("%d %d\n", number(1), (int)all.size());
}
