#include "case.h"
//# Patch: ok
//# Expect: 102 1

static int made;
struct Thing {
  int value;
  Thing(int v) : value(v) { made++; }
};
NOINLINE Thing &thing()
{
  static Thing it(atoi("1"));

  it.value += 100;
  return it;
}

void answer(const char *line)
{
  (void)line;
  int first = thing().value++;

  printf("%d %d\n", first, made);
}
