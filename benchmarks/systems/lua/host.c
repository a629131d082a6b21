/* The same program with all but main() in a shared library, which it loads again on `!reload FILE`. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

typedef const char *answer_function(const char *chunk);

static double microseconds(void) {
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static answer_function *load(const char *file) {
  void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);

  if (!library)
    printf("failed: %s\n", dlerror());
  return library ? (answer_function *)dlsym(library, "guest_answer") : NULL;
}

int main(int argc, char **argv) {
  static char line[4096];
  answer_function *answer = argc > 1 ? load(argv[1]) : NULL;

  while (answer && fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    if (!strncmp(line, "!reload ", 8)) {
      double begun = microseconds();
      answer_function *next = load(line + 8);

      if (next) {
        answer = next;
        printf("reloaded in %.0f us\n", microseconds() - begun);
      }
    } else {
      printf("%s\n", answer(line));
    }
    fflush(stdout);
  }
  return 0;
}
