//# Patch: ok
//# Note: initialises
//# Expect: 2 7 9 16
//# Reject: 0 1 2
//# Stdin: again
//# Expect: 2 7 9 16

#define WITH_OBJECTS
#include "counted.h"
#include <string>

int made;
static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
int other(void);

void answer(const char *line)
{
  std::string all = line;

  if (all.empty())
    return;
  printf("%d %d %d %d\n", made, shared.value, Of<int>::one.value, other());
}
