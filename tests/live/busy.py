"""A project with threads for the tests of consistency, reverts and hooks: its source, and how it is driven."""
from __future__ import annotations

from pathlib import Path

SCONSTRUCT = """\
DefaultEnvironment(tools=[])
env = Environment(tools=['default', 'hotreload'], CCFLAGS=['-O2', '-g'])
env.Program('build/busy', Glob('src/*.c'), LIBS=['pthread'])
"""

STEPS_H = """\
int step_one(int n);
int step_two(int n);
int both(int n);
const char *greeting(void);
int waits(int fd);
int unlikely(int n, int fd);
"""

STEPS_C = r"""
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "steps.h"

static int version(void);
int tuned = 10;
static int seen;

static __attribute__((noinline)) int version(void) { return 1; }

__attribute__((noinline)) int step_one(int n) { return n * 0 + version() + 0; }

__attribute__((noinline)) int step_two(int n) { return n * 0 + version() + 0; }

/* 0 if both steps are of one version. */
int both(int n)
{
  int one = step_one(n);

  for (volatile int i = 0; i < 3000; i++)
    ;
  seen += 1;
  return one - step_two(n);
}

const char *greeting(void) { return "hello"; }

static char one_byte(int fd)
{
  char byte = 0;

  while (read(fd, &byte, 1) < 0 && errno == EINTR)
    ;
  return byte;
}

int waits(int fd) { return one_byte(fd) + 100; }

static __attribute__((cold, noinline)) int rare(int fd) { return one_byte(fd) + 1; }

/* What calls a cold function goes to the .cold half, so the thread waits there. */
int unlikely(int n, int fd)
{
  if (n > 0)
    return rare(fd) + n * 2;
  return 7;
}
"""

MAIN_C = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <hotreload.h>
#include "steps.h"

extern int tuned;
static int pipes[2], veto, before, after, back;
static volatile int stop;
static long mixed, calls;
static pthread_t threads[16];
static int n_threads;

static int before_patch(unsigned long from, unsigned long to) { before++; return to > from && veto; }
static int after_patch(unsigned long from, unsigned long to) { after += (int)(to - from); return 0; }
static int before_revert(unsigned long from, unsigned long to) { back++; return to < from && veto; }

HOTRELOAD_BEFORE_PATCH(before_patch);
HOTRELOAD_AFTER_PATCH(after_patch);
HOTRELOAD_BEFORE_REVERT(before_revert);

static void *spinner(void *unused)
{
  while (!stop) {
    if (both(1))
      __atomic_add_fetch(&mixed, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    for (volatile int i = 0; i < 3000; i++)
      ;
  }
  return unused;
}

static void *waiter(void *unused) { waits(pipes[0]); return unused; }
static void *cold_waiter(void *unused) { unlikely(1, pipes[0]); return unused; }

static void begin(void *(*run)(void *), const char *name)
{
  pthread_create(&threads[n_threads], NULL, run, NULL);
  pthread_setname_np(threads[n_threads++], name);
  printf("begun\n");
}

static void end(void)
{
  stop = 1;
  for (int i = 0; i < n_threads; i++)
    if (write(pipes[1], "1", 1) != 1)
      abort();
  while (n_threads)
    pthread_join(threads[--n_threads], NULL);
  stop = 0;
  printf("ended, mixed %ld\n", mixed);
  mixed = 0;
}

static void run(long n)
{
  for (long until = calls + n; __atomic_load_n(&calls, __ATOMIC_RELAXED) < until;)
    ;
  printf("ran\n");
}

static void try_it(void)
{
  struct hotreload_recovery here;

  if (HOTRELOAD_RECOVERY_SAFEPOINT(&here))
    printf("dropped it\n");
  else
    printf("tried, %s\n", greeting());
  hotreload_recovery_end();
}

int main(void)
{
  char line[64];

  setvbuf(stdout, NULL, _IOLBF, 0);
  if (pipe(pipes))
    return 1;
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    if (!strcmp(line, "try\n"))
      try_it();
    else if (!strcmp(line, "spin\n"))
      begin(spinner, "spinner");
    else if (!strcmp(line, "wait\n"))
      begin(waiter, "waiter");
    else if (!strcmp(line, "cold\n"))
      begin(cold_waiter, "cold");
    else if (!strcmp(line, "end\n"))
      end();
    else if (!strcmp(line, "run\n"))
      run(200);
    else if (!strcmp(line, "veto\n"))
      printf("veto %d\n", veto = !veto);
    else if (!strcmp(line, "hooks\n"))
      printf("hooks %d %d %d\n", before, after, back);
    else
      printf("%s, steps %d %d, tuned %d, unlikely %d\n", greeting(), step_one(1), step_two(1), tuned, unlikely(0, -1));
  }
  return 0;
}
"""


def write(folder: Path) -> Path:
    """The project, unbuilt."""
    (folder / "src").mkdir(parents=True)
    for name, text in (("SConstruct", SCONSTRUCT), ("src/steps.h", STEPS_H), ("src/steps.c", STEPS_C), ("src/main.c", MAIN_C)):
        (folder / name).write_text(text)
    return folder
