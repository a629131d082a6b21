#include "case.h"
//# Patch: ok
//# Expect: 2.500 5.500 26
//# Reject: 1.500

static NOINLINE double mix(double x) { return x * 2.5 + 0.0; }
static NOINLINE float mixf(float x) { return x * 5.5f; }
static NOINLINE int sum(const int *a)
{
  int r[4] = {1, 2, 3, 7}, s = 0;

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
