// A new thread-local that code initialises: in each thread at its first use there, also in threads that run.
#include "case.h"
//# Link: -pthread
//# Expect: 1 2
//# Stdin: again
//# Expect: 1 2

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <semaphore.h>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
NOINLINE std::string step(void) { return std::to_string(number(1)); }
static std::string *answered;
static sem_t asked, done;
static void work(void)
{
  for (;;) {
    sem_wait(&asked);
    *answered = step();
    sem_post(&done);
  }
}
static std::string ask(void)
{
  std::string text;

  answered = &text;
  sem_post(&asked);
  sem_wait(&done);
  return text;
}
static bool begun;
NOINLINE void begin(void)
{
  sem_init(&asked, 0, 0);
  sem_init(&done, 0, 0);
  std::thread(work).detach();
  begun = true;
}

void answer(const char *line)
{
  if (!begun)
    begin();
  if (*line == 'e')
    exit(0);
  printf("%s %d\n", step().c_str(), (int)ask().size() + 1);
}
