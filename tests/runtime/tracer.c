/* Which system calls one thread, its argument, makes. Prints "tracing", and when standard input ends the number of each
 * call that it has seen, one a line. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define HIGHEST 1024
static char seen[HIGHEST];

static int stop_was_call(int status) { return WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80); }

static void note(pid_t tid) {
  struct __ptrace_syscall_info info;

  if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY &&
      info.entry.nr < HIGHEST)
    seen[info.entry.nr] = 1;
}

static int is_over(void) {
  struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

  return poll(&input, 1, 1) == 1;
}

int main(int argc, char **argv) {
  pid_t tid = argc > 1 ? atoi(argv[1]) : 0;
  int status, i, asked = 0;

  if (ptrace(PTRACE_SEIZE, tid, NULL, PTRACE_O_TRACESYSGOOD) || ptrace(PTRACE_INTERRUPT, tid, NULL, NULL)) {
    perror("ptrace");
    return 1;
  }
  for (i = 0;; ) {
    pid_t got = waitpid(tid, &status, __WALL | WNOHANG);

    if (got < 0 || (got && !WIFSTOPPED(status)))
      break;
    if (!got) {
      if (is_over()) { /* again and again: it may just have been on its way to another stop */
        asked = 1;
        ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
        sched_yield();
      }
      continue;
    }
    if (stop_was_call(status))
      note(tid);
    else if (asked && status >> 16 == PTRACE_EVENT_STOP) {
      ptrace(PTRACE_DETACH, tid, NULL, NULL);
      break;
    }
    ptrace(PTRACE_SYSCALL, tid, NULL, status >> 16 || stop_was_call(status) ? 0 : WSTOPSIG(status));
    if (!i++) {
      printf("tracing\n");
      fflush(stdout);
    }
  }
  for (i = 0; i < HIGHEST; i++)
    if (seen[i])
      printf("%d\n", i);
  return 0;
}
