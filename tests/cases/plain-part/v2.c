#include "case.h"
//# Patch: ok
//# Expect: 12 11
//# Reject: 3 11

int plain(int (*callback)(int), int n);
extern int plain_variable;
NOINLINE int callback(int n) { return n + 10; }

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", plain(callback, 1), plain_variable++);
}
