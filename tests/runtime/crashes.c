/* A program whose patches crash. Reads commands, one a line, and answers each with one line. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hotreload.h"
#include "stubs.h"

int value(void);
STUB(value);
int value_body(void) BODY(value);

int counter = 100;
const char greeting[16] = "hello";

__attribute__((noinline)) int value_body(void) { return ++counter; }

/* Old code that crashes; a payload may call it. */
__attribute__((noinline)) int crash(void) {
  *(volatile int *)16 = 1;
  return 0;
}

static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

/* ---- handlers of the program ------------------------------------------------------------------------------- */

static sigjmp_buf again;
static volatile int handled, on_signal_stack;
static struct sigaction before;
static char signal_stack[1 << 16];

static void take_note(int number) {
  char here;

  handled = number;
  on_signal_stack = &here >= signal_stack && &here < signal_stack + sizeof signal_stack;
}

static void jump_out(int number, siginfo_t *info, void *context) {
  (void)info;
  (void)context;
  take_note(number);
  siglongjmp(again, 1);
}

/* As a library does that comes on top of another one. */
static void call_former(int number, siginfo_t *info, void *context) {
  take_note(number);
  if (before.sa_flags & SA_SIGINFO)
    before.sa_sigaction(number, info, context);
  else if (before.sa_handler != SIG_DFL)
    before.sa_handler(number);
  else
    siglongjmp(again, 1);
}

static void install(const char *which) {
  struct sigaction action = {.sa_flags = SA_SIGINFO};

  action.sa_sigaction = strstr(which, "chain") ? call_former : jump_out;
  if (strstr(which, "onstack"))
    action.sa_flags |= SA_ONSTACK;
  if (strstr(which, "once"))
    action.sa_flags |= (int)SA_RESETHAND;
  if (strstr(which, "ignore")) {
    action.sa_flags = 0;
    action.sa_handler = SIG_IGN;
  }
  printf("installed %d\n", sigaction(SIGSEGV, &action, &before));
}

static void use_signal_stack(void) {
  stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};

  printf("stack %d\n", sigaltstack(&stack, NULL));
}

/* What the kernel has for each: d default, i ignore, j and c ours, ? another. */
static void show_actions(void) {
  struct sigaction action;
  unsigned i;

  printf("actions ");
  for (i = 0; i < sizeof signals / sizeof *signals; i++) {
    sigaction(signals[i], NULL, &action);
    putchar(action.sa_handler == SIG_DFL ? 'd' : action.sa_handler == SIG_IGN ? 'i' :
            action.sa_sigaction == jump_out ? 'j' : action.sa_sigaction == call_former ? 'c' : '?');
  }
  printf("\n");
}

/* ---- recovery ------------------------------------------------------------------------------------------------ */

static void *safely(void *unused) {
  struct hotreload_recovery here;
  volatile int passes = 0;
  int number = HOTRELOAD_RECOVERY_SAFEPOINT(&here);
  sigset_t mask;

  (void)unused;
  if (number) {
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    printf("recovered from %d after %d, blocked %d\n", number, passes, sigismember(&mask, SIGSEGV));
  } else {
    passes++;
    printf("safely %d\n", value());
  }
  hotreload_recovery_end();
  return NULL;
}

/* The place it declares is gone when the crash comes. */
static __attribute__((noinline)) void declare_and_return(void) {
  struct hotreload_recovery here;

  if (HOTRELOAD_RECOVERY_SAFEPOINT(&here))
    printf("went back into a function that has returned\n");
}

static void *plainly(void *unused) {
  (void)unused;
  printf("plainly %d\n", value());
  return NULL;
}

static void in_thread(void *(*function)(void *)) {
  pthread_t thread;

  pthread_create(&thread, NULL, function, NULL);
  pthread_join(thread, NULL);
}

#define CROWD 8
static pthread_barrier_t barrier;
static int recovered;

static void *in_crowd(void *unused) {
  struct hotreload_recovery here;

  (void)unused;
  if (HOTRELOAD_RECOVERY_SAFEPOINT(&here)) {
    __atomic_add_fetch(&recovered, 1, __ATOMIC_RELAXED);
  } else {
    pthread_barrier_wait(&barrier);
    value();
  }
  hotreload_recovery_end();
  return NULL;
}

static void crowd(void) {
  pthread_t threads[CROWD];
  int i;

  recovered = 0;
  pthread_barrier_init(&barrier, NULL, CROWD);
  for (i = 0; i < CROWD; i++)
    pthread_create(&threads[i], NULL, in_crowd, NULL);
  for (i = 0; i < CROWD; i++)
    pthread_join(threads[i], NULL);
  printf("crowd %d\n", recovered);
}

static void in_child(void) {
  pid_t child = fork();
  int status;

  if (!child)
    _exit(value() < 0);
  waitpid(child, &status, 0);
  printf("child %d\n", WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
}

static void command(const char *line) {
  if (!strcmp(line, "value"))
    printf("value %d\n", value());
  else if (!strcmp(line, "safely"))
    in_thread(safely);
  else if (!strcmp(line, "plainly"))
    in_thread(plainly);
  else if (!strcmp(line, "crowd"))
    crowd();
  else if (!strcmp(line, "child"))
    in_child();
  else if (!strcmp(line, "crash"))
    crash();
  else if (!strncmp(line, "load ", 5))
    printf("loaded %d\n", dlopen(line + 5, RTLD_NOW | RTLD_LOCAL) != NULL);
  else if (!strcmp(line, "declare"))
    (declare_and_return(), printf("declared\n"));
  else if (!strcmp(line, "data"))
    printf("data %s\n", greeting);
  else if (!strncmp(line, "install", 7))
    install(line);
  else if (!strcmp(line, "stack"))
    use_signal_stack();
  else if (!strcmp(line, "actions"))
    show_actions();
  else if (!strcmp(line, "handled"))
    printf("handled %d on stack %d\n", handled, on_signal_stack);
  else if (!strcmp(line, "generation"))
    printf("generation %lu\n", hotreload_generation());
#ifdef POLLS
  else if (!strcmp(line, "poll"))
    printf("poll %d\n", hotreload_poll());
#endif
  else
    printf("unknown %s\n", line);
}

int main(void) {
  char line[256];

  setvbuf(stdout, NULL, _IOLBF, 0);
  signal(SIGUSR1, SIG_IGN);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    if (sigsetjmp(again, 1))
      printf("jumped out\n");
    else
      command(line);
  }
  return 0;
}
