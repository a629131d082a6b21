#include "case.h"
//# Patch: ok
//# Expect: <3 6 72 7 x
//# Expect: again 15 7

static int calls;
static int zeroed;
int seventy = 70;
static const int table[] = {5, 6, 7};
static const int *pointer = &table[2];
static struct { const char *name; int *where; } record = {"x", &zeroed};

void answer(const char *line)
{
  (void)line;
  calls++;
  *record.where += 7;
  printf("<%d %d %d %d %s\n", calls, table[1], ++seventy, *pointer, record.name);
  pointer = &table[2];
  printf("again %d %d\n", zeroed + 1, *pointer);
}
