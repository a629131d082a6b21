#include "case.h"
//# Patch: ok
//# Expect: <1 2.5 x 9 8.5 7 6.5 5 4 3 2 1

#include <stdarg.h>
static NOINLINE void show(const char *format, ...)
{
  va_list list;

  va_start(list, format);
  fputs("<", stdout);
  vprintf(format, list);
  va_end(list);
}

void answer(const char *line)
{
  (void)line;
  show("%d %.1f %s %d %.1f %d %.1f %d %d %d %d %d\n", 1, 2.5, "x", 9, 8.5, 7, 6.5, 5, 4, 3, 2, 1);
}
