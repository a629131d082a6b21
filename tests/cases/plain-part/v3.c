#include "case.h"
//# Patch: ok
//# Expect: 12 12 205

int plain(int (*callback)(int), int n);
int plain_only(int n);
extern int plain_variable;
NOINLINE int callback(int n) { return n + 10; }

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d\n", plain(callback, 1), plain_variable, plain_only(200));
}
