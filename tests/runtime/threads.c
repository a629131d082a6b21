/* A program with threads in all kinds of places. Reads commands, one a line, and answers each with one line. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "hotreload.h"
#include "stubs.h"

#define MAX_THREADS 1024

int first(void);
int second(void);
int pair(void);
int held(int fd);
STUB(first);
STUB(second);
STUB(pair);
STUB(held);
int first_body(void) BODY(first);
int second_body(void) BODY(second);
int pair_body(void) BODY(pair);
int held_body(int fd) BODY(held);

int spin_length = 2000;

__attribute__((noinline)) int first_body(void) { return 0; }
__attribute__((noinline)) int second_body(void) { return 0; }

static __attribute__((noinline)) void spin(void) {
  volatile int i;

  for (i = 0; i < spin_length; i++)
    ;
}

/* Both must be of one version: 1 if they are not. */
__attribute__((noinline)) int pair_body(void) {
  int one = first();

  spin();
  return one != second();
}

static char read_byte(int fd) {
  char byte = 0;

  while (read(fd, &byte, 1) < 0 && errno == EINTR)
    ;
  return byte;
}

/* Sits here until a byte comes. */
__attribute__((noinline)) int held_body(int fd) {
  char byte = read_byte(fd);

  return byte ? 1 : 0;
}

static int pipes[2]; /* a byte for each sleeper that shall go on */
static volatile int stop;
static long mixed, calls;
static pthread_t threads[MAX_THREADS];
static unsigned n_threads;

static void begin(void *(*function)(void *), void *argument, const char *name) {
  pthread_attr_t attributes;

  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 256 << 10);
  if (pthread_create(&threads[n_threads], &attributes, function, argument))
    abort();
  if (name)
    pthread_setname_np(threads[n_threads], name);
  n_threads++;
}

static void join_all(void) {
  while (n_threads)
    pthread_join(threads[--n_threads], NULL);
}

/* ---- what threads do -------------------------------------------------------------------------------------- */

static void *spinner(void *unused) {
  (void)unused;
  while (!stop) {
    if (pair())
      __atomic_add_fetch(&mixed, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    spin();
  }
  return NULL;
}

/* Asleep most of the time, and calls at once when it wakes up. */
static void *napper(void *unused) {
  struct timespec time = {.tv_nsec = 20000};

  (void)unused;
  while (!stop) {
    nanosleep(&time, NULL);
    if (pair())
      __atomic_add_fetch(&mixed, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
  }
  return NULL;
}

/* As a server's thread that answers a few hundred requests a second. */
static void *server(void *unused) {
  struct timespec request = {.tv_nsec = 2000000};

  (void)unused;
  while (!stop) {
    if (pair())
      __atomic_add_fetch(&mixed, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    nanosleep(&request, NULL);
  }
  return NULL;
}

static sem_t there; /* a sleeper is (nearly) asleep */
static volatile pid_t last_tid;

static void arrive(void) {
  last_tid = (pid_t)syscall(SYS_gettid);
  sem_post(&there);
}

static void *holder(void *unused) {
  (void)unused;
  arrive();
  return (void *)(intptr_t)held(pipes[0]);
}

/* Fills the stack that its caller will use next with return addresses into held(). */
static __attribute__((noinline)) void dirty(void) {
  volatile uintptr_t words[4096];
  unsigned i;

  for (i = 0; i < 4096; i++)
    words[i] = (uintptr_t)held_body + 5 + i % 16;
}

static __attribute__((noinline)) void idle(void) {
  volatile uintptr_t words[2048]; /* never initialised */

  __asm__ volatile("" : : "r"(words) : "memory");
  arrive();
  read_byte(pipes[0]);
  __asm__ volatile("" : : "r"(words) : "memory");
}

static void *stale(void *unused) {
  (void)unused;
  dirty();
  idle();
  return NULL;
}

/* The same below a function without an unwind description. */
void undescribed(void (*inner)(void));
__asm__(".pushsection .text.undescribed,\"ax\",@progbits\n.globl undescribed\n.type undescribed,@function\n"
        "undescribed:\nsubq $8, %rsp\ncall *%rdi\naddq $8, %rsp\nret\n"
        ".size undescribed, . - undescribed\n.popsection\n");

static void *stale_and_undescribed(void *unused) {
  (void)unused;
  dirty();
  undescribed(idle);
  return NULL;
}

static int raw_mask;

static void *deaf(void *raw) {
  uint64_t all = ~0ull;
  sigset_t set;

  sigfillset(&set);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  if (raw)
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, sizeof all);
  arrive();
  read_byte(pipes[0]);
  return NULL;
}

static ucontext_t home, other;

static void coroutine(void) {
  arrive();
  read_byte(pipes[0]);
  swapcontext(&other, &home);
}

static __attribute__((noinline)) void run_coroutine(void) {
  getcontext(&other);
  other.uc_stack.ss_size = 64 << 10;
  other.uc_stack.ss_sp = malloc(other.uc_stack.ss_size);
  other.uc_link = NULL;
  makecontext(&other, coroutine, 0);
  swapcontext(&home, &other);
  free(other.uc_stack.ss_sp);
}

static void *in_coroutine(void *unused) {
  (void)unused;
  run_coroutine();
  return NULL;
}

static void in_handler(int number) {
  (void)number;
  arrive();
  read_byte(pipes[0]);
}

static void interrupt_self(void) {
  struct sigaction action = {.sa_handler = in_handler, .sa_flags = SA_ONSTACK};
  stack_t stack = {.ss_size = 64 << 10};

  stack.ss_sp = malloc(stack.ss_size);
  sigaltstack(&stack, NULL);
  sigaction(SIGUSR1, &action, NULL);
  pthread_kill(pthread_self(), SIGUSR1);
}

static void *handling(void *unused) {
  (void)unused;
  interrupt_self();
  return NULL;
}

static ucontext_t suspended, resumer; /* a coroutine in the middle of calls_back(), and who goes on meanwhile */
static int returned;

/* A payload's or image's function calls it while it is on the stack itself. */
void call_back(int what) {
  if (what == 'y')
    swapcontext(&suspended, &resumer);
  else if (what == 'c')
    run_coroutine();
  else if (what == 's')
    interrupt_self();
}

int calls_back(int what);
STUB(calls_back);
int calls_back_body(int what) BODY(calls_back);

__attribute__((noinline)) int calls_back_body(int what) {
  call_back(what);
  return what + 1;
}

static void calls_and_returns(void) { returned = calls_back('y'); }

static void suspend(void) {
  getcontext(&suspended);
  suspended.uc_stack.ss_size = 64 << 10;
  suspended.uc_stack.ss_sp = malloc(suspended.uc_stack.ss_size);
  suspended.uc_link = &resumer;
  makecontext(&suspended, calls_and_returns, 0);
  swapcontext(&resumer, &suspended);
  printf("suspended\n");
}

static void resume(void) {
  swapcontext(&resumer, &suspended);
  printf("returned %d\n", returned);
}

static void *below_coroutine(void *unused) {
  (void)unused;
  calls_back('c');
  return NULL;
}

static void *below_handler(void *unused) {
  (void)unused;
  calls_back('s');
  return NULL;
}

static void *newborn(void *unused) { return unused; }

static void *parent(void *unused) {
  pthread_t child;

  (void)unused;
  while (!stop)
    if (!pthread_create(&child, NULL, newborn, NULL))
      pthread_join(child, NULL);
  return NULL;
}

static void *forker(void *unused) {
  int status;

  (void)unused;
  while (!stop) {
    pid_t child = fork();

    if (!child)
      _exit(first() < 0);
    if (child < 0 || waitpid(child, &status, 0) != child || status)
      __atomic_add_fetch(&mixed, 1, __ATOMIC_RELAXED);
  }
  return NULL;
}

/* ---- sleeping in the kernel: results must be as without us ------------------------------------------------ */

static int sockets[2];
static sem_t sleeping;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int signalled;
static volatile int futex_word;
static char results[16][64];
static unsigned n_results;

static void result(const char *call, long value) {
  unsigned i = __atomic_fetch_add(&n_results, 1, __ATOMIC_RELAXED);

  snprintf(results[i], sizeof results[i], "%s=%ld/%s", call, value, value < 0 ? strerrorname_np(errno) : "-");
}

static void *sleep_read(void *unused) {
  char byte;

  (void)unused;
  arrive();
  result("read", read(pipes[0], &byte, 1));
  return NULL;
}

static void *sleep_recv(void *unused) {
  char byte;

  (void)unused;
  arrive();
  result("recv", recv(sockets[0], &byte, 1, 0));
  return NULL;
}

static void *sleep_poll(void *unused) {
  struct pollfd ready = {.fd = sockets[0], .events = POLLIN};

  (void)unused;
  arrive();
  result("poll", poll(&ready, 1, 60000));
  return NULL;
}

static void *sleep_poll_for_ever(void *unused) {
  struct pollfd ready = {.fd = sockets[0], .events = POLLIN};

  (void)unused;
  arrive();
  result("poll", poll(&ready, 1, -1));
  return NULL;
}

static void *sleep_select(void *unused) {
  struct timeval time = {60, 0};
  fd_set set;

  (void)unused;
  FD_ZERO(&set);
  FD_SET(sockets[0], &set);
  arrive();
  result("select", select(sockets[0] + 1, &set, NULL, NULL, &time));
  return NULL;
}

/* In milliseconds: the sleep must neither end early nor begin anew. */
static void *sleep_sleep(void *unused) {
  struct timespec from, to;
  unsigned left;
  long ms;

  (void)unused;
  arrive();
  clock_gettime(CLOCK_MONOTONIC, &from);
  left = sleep(2);
  clock_gettime(CLOCK_MONOTONIC, &to);
  ms = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
  result("sleep", left ? -1 : ms >= 2000);
  return NULL;
}

static void *sleep_timed_semaphore(void *unused) {
  struct timespec until;

  (void)unused;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 60;
  arrive();
  result("sem_timedwait", sem_timedwait(&sleeping, &until));
  return NULL;
}

static void *sleep_finite_epoll(void *unused) {
  struct epoll_event event = {.events = EPOLLIN};
  int epoll = epoll_create1(0);

  (void)unused;
  epoll_ctl(epoll, EPOLL_CTL_ADD, sockets[0], &event);
  arrive();
  result("epoll", epoll_wait(epoll, &event, 1, 60000));
  close(epoll);
  return NULL;
}

static void nothing(int number) { (void)number; }

/* Woken by a signal of the program's own: that must still end it. */
static void *sleep_pause(void *unused) {
  struct sigaction action = {.sa_handler = nothing};

  (void)unused;
  sigaction(SIGUSR2, &action, NULL);
  arrive();
  result("pause", pause());
  return NULL;
}

static void *sleep_nanosleep(void *unused) {
  struct timespec time = {.tv_nsec = 700000000};

  (void)unused;
  arrive();
  result("nanosleep", nanosleep(&time, NULL));
  return NULL;
}

static void *sleep_epoll(void *unused) {
  struct epoll_event event = {.events = EPOLLIN};
  int epoll = epoll_create1(0);

  (void)unused;
  epoll_ctl(epoll, EPOLL_CTL_ADD, sockets[0], &event);
  arrive();
  result("epoll", epoll_wait(epoll, &event, 1, -1));
  close(epoll);
  return NULL;
}

static void *sleep_semaphore(void *unused) {
  (void)unused;
  arrive();
  result("semaphore", sem_wait(&sleeping));
  return NULL;
}

static void *sleep_condition(void *unused) {
  (void)unused;
  pthread_mutex_lock(&mutex);
  arrive();
  while (!signalled)
    pthread_cond_wait(&condition, &mutex);
  pthread_mutex_unlock(&mutex);
  result("condition", 0);
  return NULL;
}

static void *sleep_futex(void *unused) {
  (void)unused;
  arrive();
  result("futex", syscall(SYS_futex, &futex_word, FUTEX_WAIT, 0, NULL, NULL, 0));
  return NULL;
}

static const struct {
  const char *name;
  void *(*function)(void *);
} sleepers[] = {{"read", sleep_read}, {"recv", sleep_recv}, {"poll", sleep_poll}, {"nanosleep", sleep_nanosleep},
                {"epoll", sleep_epoll}, {"semaphore", sleep_semaphore}, {"condition", sleep_condition},
                {"futex", sleep_futex},
                {"poll-for-ever", sleep_poll_for_ever}, {"select", sleep_select}, {"sleep", sleep_sleep},
                {"sem_timedwait", sleep_timed_semaphore}, {"finite-epoll", sleep_finite_epoll}, {"pause", sleep_pause}};

/* Until the kernel says that the last thread sleeps. */
static void wait_asleep(void) {
  char path[64], state = 0;
  pid_t tid;

  sem_wait(&there);
  for (tid = 0; state != 'S';) {
    FILE *list;
    char text[256];

    tid = last_tid;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
    list = fopen(path, "r");
    state = list && fgets(text, sizeof text, list) ? strrchr(text, ')')[2] : 'S';
    if (list)
      fclose(list);
    sched_yield();
  }
}

static void sleep_in(const char *name) {
  size_t i;

  if (!sockets[0])
    socketpair(AF_UNIX, SOCK_STREAM, 0, sockets);
  for (i = 0; i < sizeof sleepers / sizeof *sleepers; i++)
    if (!strcmp(name, sleepers[i].name)) {
      begin(sleepers[i].function, NULL, name);
      wait_asleep();
      printf("asleep\n");
      return;
    }
  printf("unknown\n");
}

static void wake_sleepers(void) {
  unsigned i;

  if (write(pipes[1], "1", 1) != 1 || write(sockets[1], "1", 1) != 1)
    abort();
  sem_post(&sleeping);
  pthread_mutex_lock(&mutex);
  signalled = 1;
  pthread_cond_broadcast(&condition);
  pthread_mutex_unlock(&mutex);
  while (!syscall(SYS_futex, &futex_word, FUTEX_WAKE, 1, NULL, NULL, 0) &&
         __atomic_load_n(&n_results, __ATOMIC_RELAXED) < n_threads)
    sched_yield();
  join_all();
  for (i = 0; i < n_results; i++)
    printf("%s ", results[i]);
  printf("woken\n");
  n_results = 0;
}

/* ---- safepoints ------------------------------------------------------------------------------------------- */

/* Nobody but safepoints keeps the two together here: this function is not in the patch. */
static __attribute__((noinline)) int unpatched_pair(void) {
  int one = first();

  spin();
  return one != second();
}

static void *worker(void *unused) {
  (void)unused;
  while (!stop) {
    if (unpatched_pair())
      __atomic_add_fetch(&mixed, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    hotreload_safepoint();
  }
  return NULL;
}

static void *region(void *unused) {
  (void)unused;
  HOTRELOAD_BLOCKING(arrive(); read_byte(pipes[0]));
  return NULL;
}

static void *cancelled(void *unused) {
  (void)unused;
  hotreload_blocked_begin();
  arrive();
  pause();
  return NULL;
}

/* ---- hooks ------------------------------------------------------------------------------------------------ */

static int veto, hook_calls[4];
static unsigned long hook_from, hook_to;

static int before_patch(unsigned long from, unsigned long to) {
  hook_calls[1]++;
  hook_from = from;
  hook_to = to;
  return veto;
}
static int after_patch(unsigned long from, unsigned long to) {
  (void)from;
  (void)to;
  return ++hook_calls[2];
}
static int before_revert(unsigned long from, unsigned long to) {
  hook_calls[3]++;
  hook_from = from;
  hook_to = to;
  return veto;
}

HOTRELOAD_BEFORE_PATCH(before_patch);
HOTRELOAD_AFTER_PATCH(after_patch);
HOTRELOAD_BEFORE_REVERT(before_revert);

/* ---- commands --------------------------------------------------------------------------------------------- */

static const struct {
  const char *name;
  void *(*function)(void *);
  void *argument;
  bool sleeps;
} places[] = {
  {"holder", holder, NULL, true}, {"stale", stale, NULL, true}, {"undescribed", stale_and_undescribed, NULL, true},
  {"masked", deaf, NULL, true}, {"deaf", deaf, &raw_mask, true}, {"coroutine", in_coroutine, NULL, true},
  {"handler", handling, NULL, true}, {"below-coroutine", below_coroutine, NULL, true},
  {"below-handler", below_handler, NULL, true}, {"spinner", spinner, NULL, false},
  {"napper", napper, NULL, false}, {"server", server, NULL, false}, {"parent", parent, NULL, false},
  {"forker", forker, NULL, false}, {"worker", worker, NULL, false}, {"region", region, NULL, true},
};

static void start_threads(char *name) {
  char *count = strchr(name, ' ');
  unsigned n = count ? (unsigned)atoi(count + 1) : 1, i;
  size_t k;

  if (count)
    *count = 0;
  for (k = 0; k < sizeof places / sizeof *places; k++)
    if (!strcmp(places[k].name, name)) {
      for (i = 0; i < n; i++) {
        begin(places[k].function, places[k].argument, name);
        if (places[k].sleeps)
          wait_asleep();
      }
      printf("started %d\n", (int)last_tid);
      return;
    }
  printf("unknown\n");
}

static void end_threads(void) {
  unsigned i;

  stop = 1;
  for (i = 0; i < n_threads; i++)
    if (write(pipes[1], "1", 1) != 1)
      abort();
  join_all();
  stop = 0;
  while (poll(&(struct pollfd){.fd = pipes[0], .events = POLLIN}, 1, 0) == 1)
    read_byte(pipes[0]);
  printf("ended, mixed %ld\n", mixed);
  mixed = 0;
}

/* Until the spinning threads made this many calls more. */
static void run_for(long n) {
  long until = __atomic_load_n(&calls, __ATOMIC_RELAXED) + n;

  while (__atomic_load_n(&calls, __ATOMIC_RELAXED) < until)
    sched_yield();
  printf("ran, mixed %ld\n", mixed);
}

static void cancel_in_region(void) {
  begin(cancelled, NULL, NULL);
  wait_asleep();
  pthread_cancel(threads[n_threads - 1]);
  join_all();
  printf("cancelled\n");
}

/* The child, which has no other threads, goes on reading commands; the parent waits for its end. */
static void fork_child(void) {
  pid_t child = fork();
  int status;

  if (!child) {
    n_threads = 0;
    printf("child %d\n", (int)getpid());
    return;
  }
  waitpid(child, &status, 0);
  printf("child ended with %d\n", status);
}

static void command(char *line) {
  if (!strcmp(line, "first"))
    printf("first %d\n", first());
  else if (!strcmp(line, "pair"))
    printf("pair %d\n", pair());
  else if (!strcmp(line, "calls_back"))
    printf("calls_back %d\n", calls_back(0));
  else if (!strncmp(line, "start ", 6))
    start_threads(line + 6);
  else if (!strcmp(line, "end"))
    end_threads();
  else if (!strncmp(line, "run ", 4))
    run_for(atol(line + 4));
  else if (!strncmp(line, "sleep ", 6))
    sleep_in(line + 6);
  else if (!strcmp(line, "fork"))
    fork_child();
  else if (!strcmp(line, "exit"))
    exit(0);
  else if (!strcmp(line, "wake"))
    wake_sleepers();
  else if (!strcmp(line, "signal"))
    printf("signalled %d\n", pthread_kill(threads[0], SIGUSR2));
  else if (!strcmp(line, "suspend"))
    suspend();
  else if (!strcmp(line, "resume"))
    resume();
  else if (!strcmp(line, "cancel"))
    cancel_in_region();
  else if (!strncmp(line, "veto ", 5))
    printf("veto %d\n", veto = atoi(line + 5));
  else if (!strcmp(line, "hooks"))
    printf("hooks %d %d %d, %lu to %lu\n", hook_calls[1], hook_calls[2], hook_calls[3], hook_from, hook_to);
  else if (!strcmp(line, "pending"))
    printf("pending %d\n", hotreload_pending());
  else if (!strncmp(line, "setuid", 6))
    printf("setuid %d\n", setuid(getuid()));
  else if (!strcmp(line, "held"))
    printf("held %d\n", (write(pipes[1], "1", 1), held(pipes[0])));
#ifdef POLLS
  else if (!strcmp(line, "poll"))
    printf("poll %d\n", hotreload_poll());
#endif
  else
    printf("unknown %s\n", line);
}

#ifdef COOPERATES
/* Sleeps for a command. Two are answered in here: a thread in a region cannot leave it while a patch waits. */
static char *next_command(char *line, int size) {
  char *got;

  while ((got = fgets(line, size, stdin)) && (!strncmp(line, "pending-now", 11) || !strncmp(line, "end", 3)))
    if (line[0] == 'p')
      printf("pending %d\n", hotreload_pending());
    else
      end_threads();
  return got;
}
#endif

int main(void) {
  char line[256];

  setvbuf(stdout, NULL, _IOLBF, 0);
  sem_init(&there, 0, 0);
  sem_init(&sleeping, 0, 0);
  if (pipe(pipes))
    return 1;
  printf("ready\n");
  for (;;) {
    char *got;

#ifdef COOPERATES
    HOTRELOAD_BLOCKING(got = next_command(line, sizeof line));
#else
    got = fgets(line, sizeof line, stdin);
#endif
    if (!got)
      return 0;
    line[strcspn(line, "\n")] = 0;
    command(line);
  }
}
