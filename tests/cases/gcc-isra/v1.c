// A copy that takes other arguments than the source says (.isra.N): never bound to by name.
#include "case.h"
//# Symbol [gcc -O2|-O3]: width\.isra\..*
//# Expect: 3, 30

struct box { int width, height; long rest[8]; };
static NOINLINE int width(const struct box *b) { return b->width + (b->width > 1000); }
NOINLINE int outer(struct box *b) { return width(b); }

void answer(const char *line)
{
  (void)line;
  struct box b = {3, 30, {0}};

  printf("%d, %d\n", outer(&b), b.height);
}
