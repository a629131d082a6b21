"""A program with forked workers, for the tests of several processes: its source, and how it is driven.

A line `K COMMAND` is for worker K; 0 is the process that forked them. Every answer begins with the number.
"""
from __future__ import annotations

from pathlib import Path

SCONSTRUCT = """\
DefaultEnvironment(tools=[])
CacheDir('../cache')     # what one test built, the next one takes
env = Environment(tools=['default', 'hotreload'], CCFLAGS=['-O2', '-g'], LIBS=['pthread'])
env.Program('build/workers', Glob('src/*.c'))
"""

STEPS_C = r"""
#include <errno.h>
#include <unistd.h>

const char *greeting(void) { return "hello"; }

int waits(int fd)
{
  char byte = 0;

  while (read(fd, &byte, 1) < 0 && errno == EINTR)
    ;
  return byte + 100;
}
"""

MAIN_C = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <hotreload.h>

const char *greeting(void);
int waits(int fd);

static int self, veto, asked, pipes[2];
static pthread_t waiter;
static FILE *to[16];

static int before_patch(unsigned long from, unsigned long to_generation)
{
  __atomic_add_fetch(&asked, 1, __ATOMIC_SEQ_CST);
  return to_generation > from && veto;
}

HOTRELOAD_BEFORE_PATCH(before_patch);

static void *wait_there(void *unused) { waits(pipes[0]); return unused; }

static void fork_one(int number, FILE **from);

static void answer(const char *command, FILE **from)
{
  if (!strcmp(command, "say\n")) {
    printf("%d %s\n", self, greeting());
  } else if (!strcmp(command, "wait\n")) {
    printf("%d waits %d\n", self, pipe(pipes) || pthread_create(&waiter, NULL, wait_there, NULL));
  } else if (!strcmp(command, "go\n")) {
    int failed = write(pipes[1], "1", 1) != 1 || pthread_join(waiter, NULL);

    printf("%d went %d\n", self, failed);
  } else if (!strcmp(command, "asked\n")) {
    printf("%d asked %d\n", self, __atomic_load_n(&asked, __ATOMIC_SEQ_CST));
  } else if (!strcmp(command, "veto\n")) {
    printf("%d veto %d\n", self, veto = !veto);
  } else if (!strncmp(command, "fork ", 5)) {
    fork_one(atoi(command + 5), from);
  } else {
    printf("%d unknown\n", self);
  }
}

/* The child reads its own commands. */
static void fork_one(int number, FILE **from)
{
  int commands[2];
  pid_t child;

  if (pipe(commands) || (child = fork()) < 0)
    abort();
  if (child) {
    close(commands[0]);
    to[number] = fdopen(commands[1], "w");
    setvbuf(to[number], NULL, _IOLBF, 0);
    return;
  }
  self = number;
  memset(to, 0, sizeof to);
  *from = fdopen(commands[0], "r");
  close(commands[1]);
  printf("%d is %d\n", self, (int)getpid());
}

int main(int argc, char **argv)
{
  int workers = argc > 1 ? atoi(argv[1]) : 0, i;
  FILE *from = stdin;
  char line[64];

  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("0 is %d\n", (int)getpid());
  for (i = 1; i <= workers && !self; i++)
    fork_one(i, &from);
  while (fgets(line, sizeof line, from)) {
    char *command = strchr(line, ' ');
    int number = atoi(line);

    if (!command)
      continue;
    if (number == self)
      answer(command + 1, &from);
    else if (number > 0 && number < 16 && to[number])
      fputs(line, to[number]);
  }
  return 0;
}
"""


def write(folder: Path) -> Path:
    """The project, unbuilt."""
    (folder / "src").mkdir(parents=True)
    for name, text in (("SConstruct", SCONSTRUCT), ("src/steps.c", STEPS_C), ("src/main.c", MAIN_C)):
        (folder / name).write_text(text)
    return folder
