/* What happens with each line of input: edit it while the loop sleeps. */
#include "handler.h"

#include <stdio.h>

static long lines;

void on_line(const char *line)
{
  lines++;
  printf("line %ld: %s\n", lines, line);
  fflush(stdout);
}
