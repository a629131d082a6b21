#include "case.h"
//# Patch: ok
//# Expect: own. own.
//# Reject: 1 2
//# Stdin: again
//# Expect: own.. own..

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <semaphore.h>

static volatile int offset;
NOINLINE int number(int n) { return n + offset; }
static thread_local std::string own = "own" + std::string(number(0), 'x');
NOINLINE std::string step(void) { return own += "."; }
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
  printf("%s %s\n", step().c_str(), ask().c_str());
}
