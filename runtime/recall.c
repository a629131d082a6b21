/* A signal that tells the agent to make its socket anew, for a program that agreed to it: HOTRELOAD_SIGNAL in its
 * environment names the number.
 *
 * The socket may be lost for good otherwise: its name was removed, the runtime directory could not be used when the
 * program started, or the program changed its user or its root. The handler runs in whatever thread the kernel
 * chooses and passes the signal on to the agent's, which takes it only while it waits. In poll mode the next
 * hotreload_poll() looks. A signal that the program uses itself, or ignores, is left alone. */
#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int number; /* 0: nothing was agreed */
static pid_t agent_tid;
static bool came;

/* Context: signal handler. */
static void on_signal(int signal) {
  pid_t self = (pid_t)syscall(SYS_gettid), agent;
  int error = errno;

  __atomic_store_n(&came, true, __ATOMIC_SEQ_CST);
  agent = __atomic_load_n(&agent_tid, __ATOMIC_SEQ_CST);
  if (agent && agent != self)
    syscall(SYS_tgkill, getpid(), agent, signal);
  errno = error;
}

/* Not those that tell of a crash, that cannot be caught, or that the C library keeps for itself. */
static int number_of(const char *text) {
  static const int others[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP};
  char *end = NULL;
  long value = text && *text ? strtol(text, &end, 10) : 0;
  size_t i;

  if (!end || *end || value < 1 || value > SIGRTMAX || (value > SIGSYS && value < SIGRTMIN))
    return 0;
  for (i = 0; i < sizeof others / sizeof *others; i++)
    if (value == others[i])
      return 0;
  return (int)value;
}

void hr_recall_agree(void) {
  struct sigaction mine = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK}, now;
  int wanted = number_of(getenv("HOTRELOAD_SIGNAL"));

  if (wanted && !sigaction(wanted, NULL, &now) && now.sa_handler == SIG_DFL && !sigaction(wanted, &mine, NULL))
    number = wanted;
}

/* Whether the signal came since this was asked last. */
bool hr_recall_came(void) { return number && __atomic_exchange_n(&came, false, __ATOMIC_SEQ_CST); }

bool hr_recall_is_agreed(void) { return number != 0; }

/* Context: the child of a fork. */
void hr_recall_forked(void) {
  agent_tid = 0;
  came = false;
}

/* poll(2) on the agent's thread, in which the signal is not blocked meanwhile. */
int hr_recall_poll(struct pollfd *ready, int n, int ms) {
  struct timespec limit = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l};
  sigset_t mask;

  if (!number)
    return poll(ready, (nfds_t)n, ms);
  __atomic_store_n(&agent_tid, (pid_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  sigdelset(&mask, number);
  if (__atomic_load_n(&came, __ATOMIC_SEQ_CST))
    return -1;
  return ppoll(ready, (nfds_t)n, ms < 0 ? NULL : &limit, &mask);
}
