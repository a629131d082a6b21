#include "case.h"
//# Patch: ok
//# Expect: 2 new made
//# Reject: zero

#include <iostream>
#include <string>
static int uses;
std::string zero(void);
NOINLINE std::string text(void) { return zero(); }

void answer(const char *line)
{
  (void)line;
  std::cout << uses++ << ' ' << text() << std::endl;
}
