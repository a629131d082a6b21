/* What benchmarks/pause.py patches: a hundred functions, threads that sleep or call them, and one that watches the
 * clock. Reads commands, one a line, and answers each with one line. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hotreload.h"
#include "stubs.h"

#define FUNCTION(n) \
  int f##n(void); \
  STUB(f##n); \
  int f##n##_body(void) BODY(f##n); \
  __attribute__((noinline)) int f##n##_body(void) { return 0; }
#define TEN(d) \
  FUNCTION(d##0) FUNCTION(d##1) FUNCTION(d##2) FUNCTION(d##3) FUNCTION(d##4) \
  FUNCTION(d##5) FUNCTION(d##6) FUNCTION(d##7) FUNCTION(d##8) FUNCTION(d##9)
TEN(0) TEN(1) TEN(2) TEN(3) TEN(4) TEN(5) TEN(6) TEN(7) TEN(8) TEN(9)

#define NAME(n) f##n,
#define NAMES(d) \
  NAME(d##0) NAME(d##1) NAME(d##2) NAME(d##3) NAME(d##4) NAME(d##5) NAME(d##6) NAME(d##7) NAME(d##8) NAME(d##9)
static int (*const functions[])(void) = {
  NAMES(0) NAMES(1) NAMES(2) NAMES(3) NAMES(4) NAMES(5) NAMES(6) NAMES(7) NAMES(8) NAMES(9)};

static int pipes[2]; /* nothing is ever written */
static sem_t begun, go; /* thousands that spin would keep the next from being started */
static uint64_t longest_ns; /* between two looks at the clock */

static uint64_t now_ns(void) {
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *asleep(void *unused) {
  char byte;

  sem_post(&begun);
  HOTRELOAD_BLOCKING(while (read(pipes[0], &byte, 1) < 0 && errno == EINTR););
  return unused;
}

static void *spinning(void *unused) {
  unsigned i;

  sem_post(&begun);
  sem_wait(&go);
  for (i = 0;; i++) {
    functions[i % 100]();
    hotreload_safepoint();
  }
  return unused;
}

static void *watching(void *unused) {
  uint64_t last = now_ns(), now;

  sem_post(&begun);
  for (;; last = now) {
    functions[0]();
    hotreload_safepoint();
    now = now_ns();
    if (now - last > __atomic_load_n(&longest_ns, __ATOMIC_RELAXED))
      __atomic_store_n(&longest_ns, now - last, __ATOMIC_RELAXED);
  }
  return unused;
}

static void start(void *(*function)(void *), int n) {
  pthread_attr_t attributes;
  pthread_t thread;
  int i;

  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 64 << 10);
  for (i = 0; i < n; i++) {
    if (pthread_create(&thread, &attributes, function, NULL))
      abort();
    sem_wait(&begun);
  }
  for (i = 0; i < n && function == spinning; i++)
    sem_post(&go);
  printf("started\n");
}

static void command(const char *line) {
  if (!strncmp(line, "asleep ", 7))
    start(asleep, atoi(line + 7));
  else if (!strncmp(line, "spinning ", 9))
    start(spinning, atoi(line + 9));
  else if (!strncmp(line, "watching", 8))
    start(watching, 1);
  else if (!strncmp(line, "gap", 3))
    printf("gap %llu\n", (unsigned long long)__atomic_exchange_n(&longest_ns, 0, __ATOMIC_RELAXED));
  else
    printf("sum %d\n", functions[0]() + functions[99]());
}

int main(void) {
  char line[64];
  char *got;

  setvbuf(stdout, NULL, _IOLBF, 0);
  sem_init(&begun, 0, 0);
  sem_init(&go, 0, 0);
  if (pipe(pipes))
    return 1;
  printf("ready\n");
  for (;;) {
    HOTRELOAD_BLOCKING(got = fgets(line, sizeof line, stdin));
    if (!got)
      return 0;
    command(line);
    hotreload_safepoint();
  }
}
