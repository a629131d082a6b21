#include "case.h"

struct point { int y, x; };
static struct point *last;
NOINLINE int sum(int n)
{
  if (!last)
    last = calloc(1, sizeof *last);
  last->x += n;
  last->y = 1;
  return last->x + last->y;
}
