"""A project with a program and a library that it loads when it is told to: its source, for tests of several images."""
from __future__ import annotations

from pathlib import Path

SCONSTRUCT = """\
DefaultEnvironment(tools=[])
env = Environment(tools=['default', 'hotreload'], CCFLAGS=['-O2', '-g'])
env.SharedLibrary('build/shape', 'src/shape.c')
env.Program('build/host', 'src/host.c', LIBS=['dl'])
"""

RATE_H = """\
#define RATE 2
int shape_area(int n);
int shape_wait(void);
"""

SHAPE_C = r"""
#include <stdio.h>
#include "rate.h"

struct counter { int calls; };
static struct counter counter;

int shape_area(int n)
{
  counter.calls++;
  return n * RATE + 100 * counter.calls;
}

/* Sits here until a line comes. */
int shape_wait(void)
{
  char line[16];

  printf("waiting\n");
  return fgets(line, sizeof line, stdin) ? RATE : -1;
}
"""

HOST_C = r"""
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include "rate.h"

static void *library;

static __attribute__((noinline)) int own_rate(void) { return RATE; }

static int call(const char *name, int argument)
{
  int (*function)(int);

  *(void **)&function = dlsym(library, name);
  return function(argument);
}

int main(int argc, char **argv)
{
  char line[64];

  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("ready\n");
  while (argc == 2 && fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    if (!strcmp(line, "load"))
      printf("loaded %d\n", (library = dlopen(argv[1], RTLD_NOW)) != NULL);
    else if (!strcmp(line, "unload"))
      printf("unloaded %d\n", dlclose(library));
    else if (!strcmp(line, "rate"))
      printf("rate %d\n", own_rate());
    else if (!strcmp(line, "area"))
      printf("area %d\n", call("shape_area", 10));
    else if (!strcmp(line, "wait"))
      printf("waited %d\n", call("shape_wait", 0));
  }
  return 0;
}
"""


def write(folder: Path) -> Path:
    (folder / "src").mkdir(parents=True)
    (folder / "SConstruct").write_text(SCONSTRUCT)
    for name, text in (("rate.h", RATE_H), ("shape.c", SHAPE_C), ("host.c", HOST_C)):
        (folder / "src" / name).write_text(text)
    return folder
