// A variable that lives and is initialised by code now: that would set it again.
#include "case.h"
//# Expect: 6
#include <string>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static int plain = 5;

void answer(const char *line)
{
  (void)line;
  printf("%s\n", (std::to_string(++plain)).c_str());
}
