/* The part of every case that is never edited. A line with a single dot ends each answer. */
#include "case.h"

static char line[256];

static char *read_line(void)
{
  char *read = fgets(line, sizeof line, stdin);

  if (read)
    line[strcspn(line, "\n")] = 0;
  return read;
}

static void end_answer(void)
{
  puts(".");
  fflush(stdout);
}

const char *wait_here(void)
{
  end_answer();
  if (!read_line())
    exit(9);
  return line;
}

int main(void)
{
  while (read_line()) {
    answer(line);
    end_answer();
  }
  return 0;
}
