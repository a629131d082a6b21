// Floating-point and vector constants that the compiler keeps outside the code.
#include "case.h"
//# Expect: 1.500 4.500 20

static NOINLINE double mix(double x) { return x * 1.5 + 0.0; }
static NOINLINE float mixf(float x) { return x * 4.5f; }
static NOINLINE int sum(const int *a)
{
  int r[4] = {1, 2, 3, 4}, s = 0;

  for (int i = 0; i < 4; i++)
    s += r[i] * a[i];
  return s;
}
static double (*volatile stored)(double) = mix;
static float (*volatile storedf)(float) = mixf;

void answer(const char *line)
{
  (void)line;
  int a[4] = {2, 2, 2, 2};

  printf("%.3f %.3f %d\n", stored(1.0), storedf(1.0f), sum(a));
}
