#include "case.h"
//# Patch: ok
//# Expect: 34, 30

struct box { int width, height; long rest[8]; };
static NOINLINE int width(const struct box *b) { return b->height + b->width + (b->rest[0] == 0); }
NOINLINE int outer(struct box *b) { return width(b); }

void answer(const char *line)
{
  (void)line;
  struct box b = {3, 30, {0}};

  printf("%d, %d\n", outer(&b), b.height);
}
