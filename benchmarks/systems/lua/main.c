/* One question a line, one answer a line. */
#include <stdio.h>

const char *guest_answer(const char *chunk);

static const char *before = "";

int main(void) {
  static char line[4096];

  while (fgets(line, sizeof line, stdin)) {
    printf("%s%s\n", before, guest_answer(line));
    fflush(stdout);
  }
  return 0;
}
