// <iostream> puts an object into every unit that includes it, whose constructor and destructor only count.
#include "case.h"
//# Expect: 0 zero
//# Stdin: again
//# Expect: 1 zero

#include <string>
static int uses;
std::string zero(void);
NOINLINE std::string text(void) { return zero(); }

void answer(const char *line)
{
  (void)line;
  printf("%d %s\n", uses++, text().c_str());
}
