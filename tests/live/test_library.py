"""What is the library's own: arrays that the linker makes in it, and by what its C++ objects are registered."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from livetools import Program, Workspace, workspace

SCONSTRUCT = """
DefaultEnvironment(tools=[])
env = Environment(tools=['default', 'hotreload'], CCFLAGS=['-O1', '-g'])
env.SharedLibrary('build/part', ['part.cc'])
env.Program('build/host', ['host.c'], LIBS=['dl'])
"""
PART = """
#define ENTRY(n) static int entry##n __attribute__((section("entries"), used)) = 1
ENTRY(1);
ENTRY(2);
extern "C" int __start_entries[], __stop_entries[];
static __attribute__((noinline)) int count(void)
{
  int total = 0;
  for (int *e = __start_entries; e < __stop_entries; e++)
    total += *e;
  return total;
}
extern "C" int part(void) { __start_entries[0] += 10; return count(); }
"""
HOST = """
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv)
{
  void *library = dlopen(argv[argc - 1], RTLD_NOW);
  int (*part)(void) = (int (*)(void))dlsym(library, "part");
  char line[64];
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin))
    if (!strcmp(line, "unload\\n"))
      printf("unloaded %d\\n", dlclose(library));
    else
      printf("counts %d\\n", part());
  return 0;
}
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Workspace]:
    source = tmp_path / "source"
    source.mkdir()
    for name, text in (("SConstruct", SCONSTRUCT), ("part.cc", PART), ("host.c", HOST)):
        (source / name).write_text(text)
    with workspace(source, tmp_path / "work") as work:
        work.scons()
        yield work


@pytest.fixture
def host(project: Workspace) -> Iterator[Program]:
    with project.start(["build/host", str(project.path / "build/libpart.so")]) as running:
        running.expect("^ready\n")
        running.ask("go", "^counts 12\n")
        yield running


def test_an_array_that_the_linker_made_stays_the_one_there_is(project: Workspace, host: Program) -> None:
    project.edit("part.cc", "total = 0", "total = 1000")
    project.scons("hotpatch")
    host.ask("go", "^counts 1022\n", reject="counts 1002")


OBJECT = """
#include <cstdio>
#include <cstdlib>
struct Watch {
  int given;
  Watch() : given(std::atoi("7")) { std::puts("made"); }
  ~Watch() { std::printf("destroyed %d\\n", given); }
};
static Watch watch;
static __attribute__((noinline)) int count(void)
{
  int total = watch.given;
"""


@pytest.fixture
def cxx_host(project: Workspace) -> Iterator[Program]:
    """With the C++ library, also in the host: without that, nobody could catch what a constructor throws."""
    project.edit("SConstruct", "['host.c'], LIBS=['dl']", "['host.c'], LIBS=['dl', 'stdc++'], LINKFLAGS=['-Wl,--no-as-needed']")
    project.edit("part.cc", "{ __start_entries[0]", "{ if (!__start_entries[0]) throw 1; __start_entries[0]")
    project.scons()
    with project.start(["build/host", str(project.path / "build/libpart.so")]) as running:
        running.expect("^ready\n")
        running.ask("go", "^counts 12\n")
        yield running


def test_a_new_object_of_a_library_is_destroyed_with_it(project: Workspace, cxx_host: Program) -> None:
    project.edit("part.cc", "static __attribute__((noinline)) int count(void)\n{\n  int total = 0;\n", OBJECT)
    project.scons("hotpatch")
    cxx_host.expect("^made\n")
    cxx_host.ask("go", "^counts 29\n", reject="made")
    cxx_host.ask("unload", "^destroyed 7\nunloaded 0\n", reject="made")
