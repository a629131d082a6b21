/* Threads with a seccomp filter of their own.
 *
 * Halting a thread makes it execute system calls (docs/confined.md), and so does a gate. A filter may answer one that
 * it does not know with the end of the process, and nobody can ask it beforehand. The agent's own filters are those
 * that it inherited, or that were put on all threads at once: a thread with more than those has put them on itself. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct confinement { /* proc(5): the lines Seccomp and Seccomp_filters of status; zeros without */
  unsigned long mode, filters;
};

static unsigned long number_of(const char *text, const char *line) {
  const char *at = strstr(text, line);

  return at ? strtoul(at + strlen(line), NULL, 10) : 0;
}

static struct confinement confinement_of(pid_t tid) {
  static char text[8192];

  if (hr_read_task_file(tid, "status", text, sizeof text) <= 0)
    return (struct confinement){0, 0};
  return (struct confinement){number_of(text, "\nSeccomp:\t"), number_of(text, "\nSeccomp_filters:\t")};
}

struct search {
  struct confinement own;
  pid_t found;
};

static bool look(pid_t tid, void *context) {
  struct search *search = context;
  struct confinement its = confinement_of(tid);

  if (its.mode != search->own.mode || its.filters != search->own.filters)
    search->found = tid;
  return !search->found;
}

/* Refuses if some thread is confined in another way than the calling one. Context: hr_threads_prepare() was called. */
bool hr_threads_unconfined(struct hr_error *error) {
  struct search search = {.own = confinement_of((pid_t)syscall(SYS_gettid))};
  char name[32];

  if (!hr_threads_each(look, &search) || !search.found)
    return true;
  hr_thread_name(search.found, name, sizeof name);
  return hr_refuse(error, HR_UNSUPPORTED,
                   "thread %d (%s) is confined by seccomp on its own, and may not be allowed the system calls that "
                   "stopping it takes; ask for --when now, with which no thread is stopped", search.found, name);
}
