#include "case.h"
//# Patch: ok
//# Expect: <1 2.5 x

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
  show("%d %.1f %s\n", 1, 2.5, "x");
}
