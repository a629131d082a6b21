#include "case.h"
//# Patch: ok
//# Expect: 102 6 9
//# Reject: 2 5

static int count __attribute__((section(".data.read_mostly")));
static __attribute__((section(".text.special"), noinline)) int special(void) { return ++count + 100; }
int tuned __attribute__((section(".data.tuned"))) = 6;
static int fresh __attribute__((section(".data.read_mostly"))) = 8;

void answer(const char *line)
{
  (void)line;
  int n = special();

  printf("%d %d %d\n", n, tuned, ++fresh);
}
