#include "case.h"
//# Patch: ok
//# Expect: main 1003, thread 1103
//# Stdin: again
//# Expect: main 2004, thread 2104

#include <pthread.h>
#include <semaphore.h>
static __thread int counted;
static sem_t asked, answered;
static int result;
NOINLINE int step(void)
{
  static __thread int fresh;

  fresh += 1000;
  return ++counted + fresh;
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
  printf("main %d, ", step());
  printf("thread %d\n", ask());
}
