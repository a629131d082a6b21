/* The part of every case that is never edited. A line with a single dot ends each answer. */
#include "case.h"

int main(void)
{
  char line[256];

  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    answer(line);
    puts(".");
    fflush(stdout);
  }
  return 0;
}
