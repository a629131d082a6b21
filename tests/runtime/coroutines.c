/* A program with coroutines of its own. Reads commands, one a line, and answers each with one line. */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "hotreload.h"
#include "stubs.h"

#define SIZE (64 << 10)
#define MANY 1000

int step(int deep);
int other(void);
STUB(step);
STUB(other);
int step_body(int deep) BODY(step);
int other_body(void) BODY(other);

struct coroutine {
  ucontext_t context, caller;
  char *stack;
  int where; /* what it does before it waits */
};

static struct coroutine coroutines[MANY];
static struct coroutine *current;
static char one_stack[SIZE];
static sem_t begun, goes_on;

/* Lets whoever resumed it go on. */
static __attribute__((noinline)) void yield(void) {
  struct coroutine *me = current;

  swapcontext(&me->context, &me->caller);
}

static void resume(struct coroutine *c) {
  current = c;
  swapcontext(&c->caller, &c->context);
}

__attribute__((noinline)) int step_body(int deep) {
  volatile int result = deep ? step(deep - 1) : 0;

  if (!deep)
    yield();
  return result + 1;
}

__attribute__((noinline)) int other_body(void) { return 1; }

/* A buffer that is never initialised lies over what an earlier call left: return addresses into step(). */
static __attribute__((noinline)) void dirty(void) {
  volatile uintptr_t words[1024];
  unsigned i;

  for (i = 0; i < 1024; i++)
    words[i] = (uintptr_t)step_body + 5 + i % 16;
}

static __attribute__((noinline)) void idle(void) {
  volatile uintptr_t words[512];

  __asm__ volatile("" : : "r"(words) : "memory");
  yield();
  __asm__ volatile("" : : "r"(words) : "memory");
}

static __attribute__((noinline)) void block(void) {
  volatile uintptr_t words[512];

  __asm__ volatile("" : : "r"(words) : "memory");
  sem_post(&begun);
  sem_wait(&goes_on);
  __asm__ volatile("" : : "r"(words) : "memory");
}

static void run(void) {
  switch (current->where) {
  case 'i': step(10); break;                  /* waits inside step() */
  case 'o': yield(); break;                   /* outside */
  case 's': dirty(); idle(); break;           /* outside, over words that look like calls of it */
  case 'b': dirty(); block(); break;          /* the same, and sleeps while it is switched in */
  }
  for (;;)
    yield();
}

static void start(struct coroutine *c, int where, char *stack, int declared) {
  c->where = where;
  c->stack = stack;
  getcontext(&c->context);
  c->context.uc_stack.ss_sp = stack;
  c->context.uc_stack.ss_size = SIZE;
  c->context.uc_link = NULL;
  makecontext(&c->context, run, 0);
  if (declared == 'd' && hotreload_stack_add(stack, SIZE, &c->context))
    abort();
  if (declared == 'w' && hotreload_stack_add(stack, SIZE, NULL))
    abort();
}

static void *thread(void *c) {
  resume(c);
  return NULL;
}

static pthread_t sleeper;

static void command(const char *line) {
  unsigned i;

  if (!strncmp(line, "start ", 6)) { /* where, how it is declared */
    start(&coroutines[0], line[6], one_stack, line[8]);
    resume(&coroutines[0]);
    printf("started %lx\n", (unsigned long)one_stack);
  } else if (!strcmp(line, "new")) { /* it has not begun */
    start(&coroutines[0], 'i', one_stack, 'd');
    printf("made\n");
  } else if (!strcmp(line, "many")) {
    for (i = 0; i < MANY; i++) {
      start(&coroutines[i], i == MANY / 2 ? 'i' : 's', malloc(SIZE), 'd');
      resume(&coroutines[i]);
    }
    printf("started\n");
  } else if (!strcmp(line, "end many")) {
    for (i = 0; i < MANY; i++) {
      resume(&coroutines[i]);
      if (hotreload_stack_remove(coroutines[i].stack))
        abort();
      free(coroutines[i].stack);
    }
    printf("ended\n");
  } else if (!strcmp(line, "thread")) {
    start(&coroutines[1], 'b', malloc(SIZE), 'd');
    pthread_create(&sleeper, NULL, thread, &coroutines[1]);
    sem_wait(&begun);
    printf("sleeps\n");
  } else if (!strcmp(line, "wake")) {
    sem_post(&goes_on);
    pthread_join(sleeper, NULL);
    printf("woken\n");
  } else if (!strcmp(line, "go on")) {
    resume(&coroutines[0]);
    printf("went on\n");
  } else if (!strcmp(line, "remove")) {
    printf("removed %d\n", hotreload_stack_remove(one_stack));
  } else if (!strcmp(line, "other")) {
    printf("other %d\n", other());
  } else {
    printf("unknown\n");
  }
}

int main(void) {
  char line[64];

  setvbuf(stdout, NULL, _IOLBF, 0);
  sem_init(&begun, 0, 0);
  sem_init(&goes_on, 0, 0);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    command(line);
  }
  return 0;
}
