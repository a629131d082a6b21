// Functions and variables of a part that is not instrumented: called, read, and its callbacks.
#include "case.h"
//# Plain: b
//# Expect: 3 10

int plain(int (*callback)(int), int n);
extern int plain_variable;
NOINLINE int callback(int n) { return n + 1; }

void answer(const char *line)
{
  (void)line;
  printf("%d %d\n", plain(callback, 1), plain_variable++);
}
