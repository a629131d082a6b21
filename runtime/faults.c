/* Fault injection, in -DHR_FAULTS builds only: elsewhere this file is empty, and hr_fault() is the constant false.
 *
 * HR_FAULT_FILE in the environment names a file. While it holds STEP:KIND:SKIP, the step of that name (hr_steps.def)
 * does what KIND says, from the hit after SKIP others on: "fail", "once" (fail at that hit only), "kill" the process,
 * or "stop": a byte is written to FILE.reached, and the step goes on when one can be read from FILE.go. Several may
 * stand there, parted by spaces. */
#include "internal.h"

#ifdef HR_FAULTS
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const names[] = {
#define HR_STEP(name, phase, words) #name,
#include "hr_steps.def"
#undef HR_STEP
};

static char known[2048]; /* the file's content when `hits` began to count */
static unsigned hits[sizeof names / sizeof *names];

static void meet(const char *path) {
  static const char *const ends[] = {".reached", ".go"};
  char name[HR_PATH_MAX], byte = 0;
  unsigned i;

  for (i = 0; i < 2; i++) {
    int pipe;

    snprintf(name, sizeof name, "%s%s", path, ends[i]);
    pipe = open(name, O_RDWR | O_CLOEXEC);
    if (pipe >= 0 && (i ? read(pipe, &byte, 1) : write(pipe, &byte, 1)) != 1)
      abort();
    if (pipe >= 0)
      close(pipe);
  }
}

static bool read_wish(const char *path, char *wish, size_t size) {
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  ssize_t n = file < 0 ? 0 : read(file, wish, size - 1);

  if (file >= 0)
    close(file);
  wish[n > 0 ? n : 0] = 0;
  return n > 0;
}

/* Context: also while threads are halted. */
bool hr_fault(enum hr_step step) {
  const char *path = getenv("HR_FAULT_FILE");
  char wish[sizeof known], name[32], kind[8], *word, *rest = wish;
  unsigned skip;

  errno = ENOMEM;
  if (!read_wish(path, wish, sizeof wish))
    return false;
  if (strcmp(wish, known)) {
    strcpy(known, wish);
    memset(hits, 0, sizeof hits);
  }
  while ((word = strtok_r(rest, " ", &rest))) {
    if (sscanf(word, "%31[A-Z_]:%7[a-z]:%u", name, kind, &skip) != 3 || strcmp(name, names[step]) ||
        hits[step]++ < skip)
      continue;
    if (!strcmp(kind, "kill"))
      raise(SIGKILL);
    if (!strcmp(kind, "stop"))
      meet(path);
    errno = ENOMEM;
    return !strcmp(kind, "fail") || (!strcmp(kind, "once") && hits[step] == skip + 1);
  }
  return false;
}
#endif
