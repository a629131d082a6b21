// Ten integer and ten floating-point parameters arrive unharmed through a stub.
#include "case.h"
//# Expect: 55 60.0

static NOINLINE void many(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j, double k, double l,
                          double m, double n, double o, double p, double q, double r, double s, double t)
{
  printf("%d %.1f\n", a + b + c + d + e + f + g + h + i + j, k + l + m + n + o + p + q + r + s + t);
}
static void (*volatile stored)(int, int, int, int, int, int, int, int, int, int, double, double, double, double, double,
                               double, double, double, double, double) = many;

void answer(const char *line)
{
  (void)line;
  stored(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5);
}
