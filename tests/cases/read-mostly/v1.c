// Variables and functions that the source puts into sections of its own.
#include "case.h"
//# Expect: 1 5

static int count __attribute__((section(".data.read_mostly")));
static __attribute__((section(".text.special"), noinline)) int special(void) { return ++count; }
int tuned __attribute__((section(".data.tuned"))) = 5;

void answer(const char *line)
{
  (void)line;
  int n = special();

  printf("%d %d\n", n, tuned);
}
