#include "case.h"
//# Patch: ok
//# Expect: 31, 30
//# Reject: 3,

struct box { int width, height; long rest[8]; };
static NOINLINE int width(const struct box *b) { return b->height + (b->width < 1000); }
NOINLINE int outer(struct box *b) { return width(b); }

void answer(const char *line)
{
  (void)line;
  struct box b = {3, 30, {0}};

  printf("%d, %d\n", outer(&b), b.height);
}
