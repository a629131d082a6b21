// A new thread-local that starts as zero, in threads that run and in threads to come.
#include "case.h"
//# Link: -pthread
//# Expect: main 1, thread 101
//# Stdin: again
//# Expect: main 2, thread 102

#include <pthread.h>
#include <semaphore.h>
static __thread int counted;
static sem_t asked, answered;
static int result;
NOINLINE int step(void) { return ++counted; }
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
