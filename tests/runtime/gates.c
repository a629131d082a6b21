/* Gates one by one: what passes, what waits, and what it finds when it goes on. Each line of output is one finding. */
#include "internal.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stubs.h"

double sum(long a, long b, long c, long d, long e, long f, long g, double h, double i, double j, double k, double l,
           double m, double n, double o, double p);
int variadic(int n, ...);
STUB(sum);
STUB(variadic);
double sum_body(long a, long b, long c, long d, long e, long f, long g, double h, double i, double j, double k,
                double l, double m, double n, double o, double p) BODY(sum);
int variadic_body(int n, ...) BODY(variadic);
extern uint64_t sum_slot __asm__("sum.hr_slot"), variadic_slot __asm__("variadic.hr_slot");

__attribute__((noinline)) double sum_body(long a, long b, long c, long d, long e, long f, long g, double h, double i,
                                          double j, double k, double l, double m, double n, double o, double p) {
  return (double)(a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g) + h + i / 2 + j / 4 + k / 8 + l / 16 + m / 32 +
         n / 64 + o / 128 + p / 256;
}

static double sum_new(long a, long b, long c, long d, long e, long f, long g, double h, double i, double j, double k,
                      double l, double m, double n, double o, double p) {
  return 1000 + sum_body(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p);
}

static double total(int n, va_list list) {
  double all = 0;

  while (n--)
    all += va_arg(list, double);
  return all;
}

__attribute__((noinline)) int variadic_body(int n, ...) {
  va_list list;
  int all;

  va_start(list, n);
  all = (int)total(n, list);
  va_end(list);
  return all;
}

static struct hr_transaction transaction;
static struct hr_move moves[2];
static volatile pid_t caller;
static double expected;

static double call_sum(void) {
  return sum(1, 2, 3, 4, 5, 6, 7, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0) - expected;
}

static void *call(void *result) {
  caller = (pid_t)syscall(SYS_gettid);
  *(double *)result = call_sum() + 10000 * variadic(3, 1.0, 2.0, 3.0);
  return NULL;
}

/* Until the kernel says that it waits on a futex. */
static void wait_for_futex(pid_t tid) {
  char text[256];
  long number = -1;

  while (number != SYS_futex) {
    sched_yield();
    if (hr_read_task_file(tid, "syscall", text, sizeof text) > 0 && text[0] != 'r')
      number = atol(text);
  }
}

static pthread_t call_and_wait(double *result) {
  pthread_t thread;

  caller = 0;
  if (pthread_create(&thread, NULL, call, result))
    abort();
  while (!caller)
    sched_yield();
  wait_for_futex(caller);
  return thread;
}

static void waits_until(const char *what, bool commit) {
  double result = -1;
  pthread_t thread;

  hr_gates_close(&transaction);
  thread = call_and_wait(&result);
  kill(getpid(), SIGUSR1); /* one that comes meanwhile ends the wait no earlier */
  wait_for_futex(caller);
  printf("%s: while shut %g\n", what, result);
  if (commit)
    __atomic_store_n(&sum_slot, (uint64_t)(uintptr_t)sum_new, __ATOMIC_RELEASE);
  hr_gates_open(&transaction);
  pthread_join(thread, NULL);
  printf("%s: %g\n", what, result);
}

static void keeper_passes(void) {
  hr_gates_close(&transaction);
  printf("keeper: %g %d\n", call_sum(), variadic(2, 1.0, 4.0));
  hr_gates_open(&transaction);
}

/* fork() without the C library's handlers: the child's gates stay shut, and nobody will open them. */
static void child_passes(void) {
  int status = -1;
  pid_t child;

  hr_gates_close(&transaction);
  child = (pid_t)syscall(SYS_fork);
  if (!child) {
    hr_gate_keeper = 0;
    _exit(call_sum() == 0 ? 7 : 8);
  }
  hr_gates_open(&transaction);
  waitpid(child, &status, 0);
  printf("child: %d\n", WEXITSTATUS(status));
}

static void too_many(void) {
  static uint64_t slots[HR_N_GATES];
  static struct hr_move many[HR_N_GATES];
  struct hr_candidate *c = &transaction.candidates[0];
  int i;

  for (i = 0; i < HR_N_GATES; i++)
    many[i].slot = (uintptr_t)&slots[i];
  c->moves = many;
  c->n_moves = HR_N_GATES - 2;
  printf("as many as there are: %d\n", hr_gates_prepare(&transaction));
  c->n_moves = HR_N_GATES;
  printf("more: %d\n", hr_gates_prepare(&transaction));
  c->n_moves = 1;
  c->n_writes = 1;
  printf("bytes in place: %d\n", hr_gates_prepare(&transaction));
}

static void nothing(int number) { (void)number; }

int main(void) {
  struct hr_candidate *c = &transaction.candidates[0];

  signal(SIGUSR1, nothing);
  transaction.n_candidates = 1;
  moves[0].slot = (uintptr_t)&sum_slot;
  moves[1].slot = (uintptr_t)&variadic_slot;
  c->moves = moves;
  c->n_moves = 2;
  expected = sum_body(1, 2, 3, 4, 5, 6, 7, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0);
  printf("prepared: %d\n", hr_gates_prepare(&transaction));
  waits_until("given up", false);
  keeper_passes();
  child_passes();
  waits_until("committed", true);
  too_many();
  return 0;
}
