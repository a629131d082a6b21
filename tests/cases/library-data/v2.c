#include "case.h"
//# Patch: ok
//# Expect: 6 1 0 1
//# Reject: 3

#include <errno.h>
#include <math.h>
#include <time.h>

void answer(const char *line)
{
  (void)line;
  printf("%d %d %d %d\n", (int)strlen("abcdef"), stdout != NULL, errno = 0,
         fprintf(stdout, "%s", "") == 0 && timezone == timezone);
}
