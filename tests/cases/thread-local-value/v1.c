// New thread-locals with initial values, in threads that run and in threads to come; a pointer and an array among them.
#include "case.h"
//# Link: -pthread
//# Expect: main 1, thread 101, new 1
//# Stdin: again
//# Expect: main 2, thread 102, new 1

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
  printf("main %d, ", step());
  printf("thread %d, ", ask());
  printf("new %d\n", ask_new());
}
