// Functions and data of a library: used before, and used for the first time.
#include "case.h"
//# Expect: 3

#include <errno.h>
#include <math.h>
#include <time.h>

void answer(const char *line)
{
  (void)line;
  printf("%d\n", (int)strlen("abc"));
}
