#include "case.h"
//# Patch: ok
//# Expect: 203 7 2

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

NOINLINE Thing &second()
{
  static Thing it(atoi("7"));

  return it;
}

void answer(const char *line)
{
  (void)line;
  int first = thing().value++, next = second().value;

  printf("%d %d %d\n", first, next, made);
}
