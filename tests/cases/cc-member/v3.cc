#include "case.h"
//# Patch: ok
//# Expect: 12 11

struct Point {
  int x, y;
  Point(int a, int b) : x(a), y(b) {}
  NOINLINE int sum() const { return x * 10 + y; }
  NOINLINE Point operator+(const Point &o) const { return Point(x + o.x + 10, y + o.y); }
};
static Point *kept;

void answer(const char *line)
{
  (void)line;
  if (!kept)
    kept = new Point(1, 2);
  printf("%d %d\n", kept->sum(), (*kept + Point(0, 0)).x);
}
