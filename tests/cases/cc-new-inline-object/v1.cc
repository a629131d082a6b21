// New inline variables and static members of templates, which several units have: one object each, made once.
//# Expect: 0 1 2

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
  printf("%d %d %d\n", made, number(1), other());
}
