// A renamed function is a new one; its static local goes on, since only one can be meant (clang names it after the
// function, as C++ does: there it is new).
#include "case.h"
//# Expect: 1

static NOINLINE int count(void)
{
  static int n;

  return ++n;
}

void answer(const char *line)
{
  (void)line;
  printf("%d\n", count());
}
