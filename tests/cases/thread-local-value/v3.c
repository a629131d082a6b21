#include "case.h"
//# Patch: ok
//# Expect: main 3065/thread 3165, new 1061
//# Stdin: again
//# Expect: main 4066/thread 4166, new 1061

#include <pthread.h>
#include <semaphore.h>
static __thread int counted;
static int ten = 10;
static __thread int fresh = 20;
static __thread const int *where = &ten;
static __thread short words[5] = {0, 0, 0, 30, 0};
static sem_t asked, answered;
static int result;
NOINLINE int step(void)
{
  fresh += 1000;
  return ++counted + fresh + *where + words[3];
}
static void *work(void *unused)
{
  counted = 100;
  for (;;) {
    sem_wait(&asked);
    result = step();
    sem_post(&answered);
  }
  return unused;
}
static int ask(void)
{
  sem_post(&asked);
  sem_wait(&answered);
  return result;
}
static void *once(void *unused) { result = step(); return unused; }
static int ask_new(void)
{
  pthread_t other;

  pthread_create(&other, NULL, once, NULL);
  pthread_join(other, NULL);
  return result;
}
static pthread_t thread;
NOINLINE void begin(void)
{
  sem_init(&asked, 0, 0);
  sem_init(&answered, 0, 0);
  pthread_create(&thread, NULL, work, NULL);
}

void answer(const char *line)
{
  (void)line;
  if (!thread)
    begin();
  printf("main %d/", step());
  printf("thread %d, ", ask());
  printf("new %d\n", ask_new());
}
