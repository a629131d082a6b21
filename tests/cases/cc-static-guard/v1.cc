// A static local that is initialised at first use is so once, before or after a patch.
#include "case.h"
//# Expect: 1 1

static int made;
struct Thing {
  int value;
  Thing(int v) : value(v) { made++; }
};
NOINLINE Thing &thing()
{
  static Thing it(atoi("1"));

  return it;
}

void answer(const char *line)
{
  (void)line;
  int first = thing().value++;

  printf("%d %d\n", first, made);
}
