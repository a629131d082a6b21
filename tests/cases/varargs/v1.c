// A function with a variable list of arguments, integers and floating point.
#include "case.h"
//# Expect: 1 2.5 x

#include <stdarg.h>
static NOINLINE void show(const char *format, ...)
{
  va_list list;

  va_start(list, format);
  vprintf(format, list);
  va_end(list);
}

void answer(const char *line)
{
  (void)line;
  show("%d %.1f %s\n", 1, 2.5, "x");
}
