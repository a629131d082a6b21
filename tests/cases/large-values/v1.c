// Structs by value, a struct returned through memory, long double: what a stub must not disturb.
#include "case.h"
//# Expect: 1 2 3 4 5 6.5

struct large { int a, b, c, d, e; long double f; };
static NOINLINE struct large make(struct large in, int n)
{
  in.a += n;
  return in;
}
static struct large (*volatile stored)(struct large, int) = make;

void answer(const char *line)
{
  (void)line;
  struct large in = {0, 2, 3, 4, 5, 6.5L}, out = stored(in, 1);

  printf("%d %d %d %d %d %.1Lf\n", out.a, out.b, out.c, out.d, out.e, out.f);
}
