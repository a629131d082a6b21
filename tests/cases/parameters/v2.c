#include "case.h"
//# Patch: ok
//# Expect: 1 2 3 4 5 6 7 8 9 10 1.5 2.5 3.5 4.5 5.5 6.5 7.5 8.5 9.5 10.5

static NOINLINE void many(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j, double k, double l,
                          double m, double n, double o, double p, double q, double r, double s, double t)
{
  printf("%d %d %d %d %d %d %d %d %d %d ", a, b, c, d, e, f, g, h, i, j);
  printf("%.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f\n", k, l, m, n, o, p, q, r, s, t);
}
static void (*volatile stored)(int, int, int, int, int, int, int, int, int, int, double, double, double, double, double,
                               double, double, double, double, double) = many;

void answer(const char *line)
{
  (void)line;
  stored(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5);
}
