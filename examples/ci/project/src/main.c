/* Reads lines and says how many there were so far. */
#include <stdio.h>

static int lines;

__attribute__((noinline)) void tell(void) { printf("%d lines\n", lines); }

int main(void) {
  char line[256];

  while (fgets(line, sizeof line, stdin)) {
    lines++;
    tell();
    fflush(stdout);
  }
  return 0;
}
