#include "case.h"
//# Patch: ok
//# Expect: 1 10

struct Shape {
  virtual ~Shape() {}
  virtual int sides() const { return 1; }
  virtual int area() const { return 10; }
};
static Shape *kept;

void answer(const char *line)
{
  (void)line;
  if (!kept)
    kept = new Shape;
  printf("%d %d\n", kept->sides(), kept->area());
}
