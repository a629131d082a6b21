#include "case.h"
//# Patch: ok
//# Expect: 3 2 1
//# Reject: 1 2 3

static int order = 1;
static int compare(const void *a, const void *b) { return -order * (*(const int *)a - *(const int *)b); }

void answer(const char *line)
{
  (void)line;
  int n[] = {2, 3, 1};

  qsort(n, 3, sizeof *n, compare);
  printf("%d %d %d\n", n[0], n[1], n[2]);
}
