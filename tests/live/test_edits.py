"""Every kind of edit that docs/edits.md lists, made to a running program: taken, or refused with its reason.

All tests start from one built project, copied for each. The program answers each line of its input through a function
pointer it stored at the start, and counts the answers in a static variable.
"""
from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from livetools import Program, Workspace, clean_environment, runtime_directory, workspace

SCONSTRUCT = """\
DefaultEnvironment(tools=[])
env = Environment(tools=['default', 'hotreload'], CCFLAGS=['-O2', '-g'], CXXFLAGS=['-std=c++17'])
env.Program('build/in_c', Glob('src/*.c'))
env.Program('build/in_cc', Glob('src/*.cc'))
"""

SHAPE_H = """\
struct shape { int width, height; };
"""

IN_C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <hotreload.h>
#include "shape.h"

struct config { int level; HOTRELOAD_RESERVE(32); };

static int calls;
static __thread int mine = 30;
static const int primes[] = {2, 3, 5, 7};
static const char *const words[] = {"zero", "one", "two"};
static struct shape box = {3, 4};
static struct config config;
static int tuned = 10;
int unused = 1;
/* more data here */

/* A comment. */
static __attribute__((noinline)) int helper(int n) { return n + 1; }
static int inlined(int n) { return n * 3; }
/* more code here */

static void describe(int n, char *out, size_t size)
{
  static int counted;
  int value = helper(n);

  calls++;
  counted += 5;
  snprintf(out, size, "call %d gives %d, %d, counted %d, %s", calls, value, inlined(n), counted, words[primes[n] & 1]);
}

static int area(void) { return box.width * box.height + tuned + mine + config.level; }

static void (*volatile chosen)(int, char *, size_t) = describe;
static int (*volatile measured)(void) = area;

int main(int argc, char **argv)
{
  char line[64], out[256];

  (void)argv;
  tuned += argc - 1; /* so that the compiler can't take these for constants */
  mine += argc - 1;
  box.height += argc - 1;
  config.level += argc - 1;
  while (fgets(line, sizeof line, stdin)) {
    chosen(atoi(line), out, sizeof out);
    printf("%s; area %d\n", out, measured());
    fflush(stdout);
  }
  return 0;
}
"""

IN_CC = r"""
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

struct Animal {
  virtual ~Animal() = default;
  virtual std::string sound(int) const { return "silence"; }
};

struct Dog : Animal {
  std::string sound(int n) const override { return std::string(n, 'w'); }
};

// more code here

template <typename T> __attribute__((noinline)) T twice(T x) { return x + x; }

static int calls;

__attribute__((noinline)) int checked(int n)
{
  if (n < 0)
    throw std::out_of_range("negative");
  return twice(n);
}

static std::string answer(const Animal &animal, int n)
{
  auto describe = [n](const std::string &what) { return what + " " + std::to_string(n); };
  calls++;
  const int doubled = checked(n);
  return describe(animal.sound(n)) + " twice " + std::to_string(doubled);
}

static std::string (*volatile chosen)(const Animal &, int) = answer;

int main()
{
  std::unique_ptr<Animal> animal = std::make_unique<Dog>();
  for (int n; std::cin >> n;) {
    try {
      std::cout << chosen(*animal, n) << " call " << calls << std::endl;
    } catch (const std::exception &e) {
      std::cout << "error " << e.what() << " call " << calls << std::endl;
    }
  }
}
"""

# What the C program answers to "1" the first and the second time, unedited.
FIRST = "call 1 gives 2, 3, counted 5, one; area 52"
SECOND = "call 2 gives 2, 3, counted 10, one; area 52"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, built once."""
    source = tmp_path_factory.mktemp("edits")
    (source / "src").mkdir()
    for name, text in (("SConstruct", SCONSTRUCT), ("src/shape.h", SHAPE_H), ("src/a.c", IN_C), ("src/b.cc", IN_CC)):
        (source / name).write_text(text)
    target = tmp_path_factory.mktemp("built") / "project"
    with workspace(source, target) as work:
        work.scons()
    return target


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Iterator[Workspace]:
    """A copy of the built project, as if it had been built there."""
    with runtime_directory() as sockets:
        path = shutil.copytree(original, tmp_path / "project", symlinks=True)
        yield Workspace(path, clean_environment(HOTRELOAD_RUNTIME_DIR=str(sockets)))


def make(project: Workspace, name: str, edits: list[tuple[str, str]]) -> None:
    for old, new in edits:
        project.edit(name, old, new)


def ask(program: Program, line: str) -> str:
    """The whole line that the program answers."""
    return program.ask(line, r"^.*\n").group().rstrip("\n")


DATA, CODE = "/* more data here */", "/* more code here */"
NEW_TEXT = ("gives %d,", "makes %d,")
AT_WORDS = "words[primes[n] & 1]"
EXTRA = "static __attribute__((noinline)) int extra(int n) { return n * 100; }"

TAKEN: dict[str, tuple[list[tuple[str, str]], str]] = {
    "body": ([("return n + 1;", "return n + 40;")], "call 2 gives 41, 3, counted 10, one; area 52"),
    "inlined": ([("return n * 3;", "return n * 4;")], "call 2 gives 2, 4, counted 10, one; area 52"),
    "new-function": ([(CODE, EXTRA), ("inlined(n),", "extra(n),")], "call 2 gives 2, 100, counted 10, one; area 52"),
    "removed-function": ([("static __attribute__((noinline)) int helper(int n) { return n + 1; }", ""),
                          ("helper(n);", "n - 1;")], "call 2 gives 0, 3, counted 10, one; area 52"),
    "renamed-function": ([("int helper(int n)", "int assistant(int n)"), ("= helper(n)", "= assistant(n) + 6")],
                         "call 2 gives 8, 3, counted 10, one; area 52"),
    "literal": ([NEW_TEXT], "call 2 makes 2, 3, counted 10, one; area 52"),
    "constant-array": ([("{2, 3, 5, 7}", "{2, 4, 5, 7}")], "call 2 gives 2, 3, counted 10, zero; area 52"),
    "string-table": ([('"one"', '"uno"')], "call 2 gives 2, 3, counted 10, uno; area 52"),
    "new-global": ([(DATA, "int fresh = 70;"), ("inlined(n),", "++fresh,")],
                   "call 2 gives 2, 71, counted 10, one; area 52"),
    "new-static": ([(DATA, "static int fresh;"), ("inlined(n),", "++fresh,")],
                   "call 2 gives 2, 1, counted 10, one; area 52"),
    "new-static-local": ([("  static int counted;", "  static int first = 8;\n  static int counted;"),
                          ("inlined(n),", "++first,")], "call 2 gives 2, 9, counted 10, one; area 52"),
    "new-constant": ([(DATA, "static const int table[] = {9, 8, 7};"), ("inlined(n),", "table[n],")],
                     "call 2 gives 2, 8, counted 10, one; area 52"),
    "new-type": ([(CODE, "struct pair { int a, b; };\nstatic struct pair pair = {5, 6};"),
                  ("inlined(n),", "pair.a++ + pair.b,")], "call 2 gives 2, 11, counted 10, one; area 52"),
    "reserve": ([("HOTRELOAD_RESERVE(32);", "long bonus; short more[2]; HOTRELOAD_RESERVE(16);"),
                 ("inlined(n),", "(int)(++config.bonus + 60),")], "call 2 gives 2, 61, counted 10, one; area 52"),
    "thread-local-used-anew": ([("inlined(n),", "mine++,")], "call 2 gives 2, 30, counted 10, one; area 53"),
    "library-call": ([("inlined(n),", "(int)strtol(\"77\", NULL, 10),")],
                     "call 2 gives 2, 77, counted 10, one; area 52"),
    "address-taken": ([(CODE, EXTRA + "\nstatic int (*volatile picked)(int) = extra;"), ("inlined(n),", "picked(n),")],
                      "call 2 gives 2, 100, counted 10, one; area 52"),
    "changed-initialiser": ([("static int tuned = 10;", "static int tuned = 11;")],
                            "call 2 gives 2, 3, counted 10, one; area 53"),
    "signature": ([("int helper(int n) { return n + 1; }", "int helper(long n) { return n >> 1; }")],
                  "call 2 gives 0, 3, counted 10, one; area 52"),
    "new-thread-local": ([(DATA, "static __thread int yours;"), ("inlined(n),", "++yours,")],
                         "call 2 gives 2, 1, counted 10, one; area 52"),
    "new-thread-local-with-a-value": ([(DATA, "static __thread int yours = 5;"), ("inlined(n),", "++yours,")],
                                      "call 2 gives 2, 6, counted 10, one; area 52"),
    "removed-variable": ([("int unused = 1;\n", ""), NEW_TEXT], "call 2 makes 2, 3, counted 10, one; area 52"),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_taken(project: Workspace, kind: str) -> None:
    edits, expected = TAKEN[kind]
    with project.start(["build/in_c"]) as program:
        assert ask(program, "1") == FIRST
        make(project, "src/a.c", edits)
        project.scons("hotpatch")
        assert expected != SECOND
        assert ask(program, "1") == expected
        assert program.finish() == 0


NOTHING: dict[str, list[tuple[str, str]]] = {
    "comment": [("/* A comment. */", "/* Another comment. */")],
    "lines-moved": [("/* A comment. */", "\n\n\n")],
    "unused-code": [(CODE, "static inline int nobody(int n) { return n; }")],
}


@pytest.mark.parametrize("kind", NOTHING)
def test_nothing_to_do(project: Workspace, kind: str) -> None:
    with project.start(["build/in_c"]) as program:
        assert ask(program, "1") == FIRST
        make(project, "src/a.c", NOTHING[kind])
        assert "nothing changed" in project.scons("hotpatch").text
        assert project.status(program)["images"][0]["generation"] == 0
        assert ask(program, "1") == SECOND


REFUSED: dict[str, tuple[list[tuple[str, str]], str]] = {
    "became-array": ([("static struct shape box = {3, 4};", "static struct shape box[2] = {{3, 4}};"),
                        ("box.width * box.height", "box[0].width * box[0].height"),
                        ("box.height +=", "box[0].height +=")], "its size changed from 8 to 16 bytes"),
    "changed-type": ([("static int tuned = 10;", "static float tuned = 10;")], "its type changed from int to float"),
    "reserve-exceeded": ([("HOTRELOAD_RESERVE(32);", "long bonus; HOTRELOAD_RESERVE(32);")],
                         "the layout of type struct config changed (was struct 40 align 8, is struct 48 align 8; had `"),
    "new-thread-local": ([(DATA, "static __thread int yours[1000] = {5};"), ("inlined(n),", "++*yours,")], "a new thread-local"),
    "changed-thread-local": ([("int mine = 30;", "int mine = 31;"), NEW_TEXT], "a thread-local changed"),
    "constructor": ([(CODE, "__attribute__((constructor)) static void early(void) { calls = 9; }")],
                    "a constructor or destructor was added"),
    "variable-became-function": ([("int unused = 1;", "int unused(void) { return 1; }"), ("inlined(n),", "unused(),")],
                                 "was a variable and is a function now"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(project: Workspace, kind: str) -> None:
    edits, reason = REFUSED[kind]
    with project.start(["build/in_c"]) as program:
        assert ask(program, "1") == FIRST
        make(project, "src/a.c", edits)
        refused = project.scons("hotpatch", code=2).text
        assert reason in refused and "src/a.o" in refused
        assert project.status(program)["images"][0]["generation"] == 0
        assert ask(program, "1") == SECOND


def test_changed_layout_is_refused(project: Workspace) -> None:
    with project.start(["build/in_c"]) as program:
        assert ask(program, "1") == FIRST
        project.edit("src/shape.h", "int width, height;", "int depth, width, height;")
        refused = project.scons("hotpatch", code=2).text
        assert "the layout of type" in refused and "shape" in refused
        assert ask(program, "1") == SECOND


def test_compile_error_leaves_the_process_alone(project: Workspace) -> None:
    with project.start(["build/in_c"]) as program:
        assert ask(program, "1") == FIRST
        project.edit("src/a.c", "return n + 1;", "return n + ;")
        assert "error: expected expression" in project.scons("hotpatch", code=2).text
        assert ask(program, "1") == SECOND


def test_refusal_then_fix_goes_live(project: Workspace) -> None:
    with project.start(["build/in_c"]) as program:
        assert ask(program, "1") == FIRST
        make(project, "src/a.c", [("int tuned = 10;", "long tuned = 10;"), NEW_TEXT])
        project.scons("hotpatch", code=2)
        project.edit("src/a.c", "long tuned = 10;", "int tuned = 10;")
        project.scons("hotpatch")
        assert ask(program, "1") == "call 2 makes 2, 3, counted 10, one; area 52"


def test_changed_initialisers_meet_live_values(project: Workspace) -> None:
    """A variable that the program has written to keeps its value, one that it has not takes the new one."""
    edits = [("static int calls;", "static int calls = 40;"), ("shape box = {3, 4};", "shape box = {5, 4};")]
    with project.start(["build/in_c"]) as program:
        assert ask(program, "1") == FIRST
        make(project, "src/a.c", edits)
        said = project.scons("hotpatch").text
        assert "data with new content: box (a.o), calls (a.o); 1 place took it" in said
        assert "kept: 1 place no longer held the old initialiser" in said
        assert ask(program, "1") == "call 2 gives 2, 3, counted 10, one; area 60"


def test_new_source_file(project: Workspace) -> None:
    with project.start(["build/in_c"]) as program:
        assert ask(program, "1") == FIRST
        text = "static int kept = 500;\nint from_new_file(int n) { return kept += n; }\n"
        (project.path / "src/new.c").write_text(text)
        make(project, "src/a.c", [(CODE, "int from_new_file(int n);"), ("inlined(n),", "from_new_file(n),")])
        project.scons("hotpatch")
        assert ask(program, "1") == "call 2 gives 2, 501, counted 10, one; area 52"
        assert ask(program, "1") == "call 3 gives 2, 502, counted 15, one; area 52"


def test_new_data_is_initialised_once(project: Workspace) -> None:
    with project.start(["build/in_c"]) as program:
        assert ask(program, "1") == FIRST
        make(project, "src/a.c", [(DATA, "int fresh = 70;"), ("inlined(n),", "++fresh,")])
        project.scons("hotpatch")
        assert ask(program, "1") == "call 2 gives 2, 71, counted 10, one; area 52"
        make(project, "src/a.c", [NEW_TEXT])
        project.scons("hotpatch")
        assert ask(program, "1") == "call 3 makes 2, 72, counted 15, one; area 52"


def test_static_locals_keep_their_values_when_one_is_added_before_them(project: Workspace) -> None:
    with project.start(["build/in_c"]) as program:
        assert ask(program, "1") == FIRST
        for generation, name in enumerate(("alpha", "beta"), 2):
            make(project, "src/a.c", [("  static int counted;", f"  static int {name} = 50;\n  static int counted;"),
                                      ("  calls++;", f"  calls++;\n  {name}++;")])
            project.scons("hotpatch")
            expected = f"call {generation} gives 2, 3, counted {5 * generation}, one; area 52"
            assert ask(program, "1") == expected
        project.edit("src/a.c", "inlined(n),", "alpha * 1000 + beta,")
        project.scons("hotpatch")
        assert ask(program, "1") == "call 4 gives 2, 53052, counted 20, one; area 52"


def test_an_edit_taken_back(project: Workspace) -> None:
    with project.start(["build/in_c"]) as program:
        assert ask(program, "1") == FIRST
        make(project, "src/a.c", [NEW_TEXT])
        project.scons("hotpatch")
        assert ask(program, "1") == "call 2 makes 2, 3, counted 10, one; area 52"
        make(project, "src/a.c", [NEW_TEXT[::-1]])
        project.scons("hotpatch")
        assert ask(program, "1") == "call 3 gives 2, 3, counted 15, one; area 52"
        assert project.status(program)["images"][0]["generation"] == 2


DOG = "struct Dog : Animal {"
SILENCE = '  virtual std::string sound(int) const { return "silence"; }'
LEGS_OF_DOG = ("calls++;", "calls += 1 + static_cast<const Dog &>(animal).legs();")

# kind -> edits, answer to "2" after one call, answer to "-1" after that
TAKEN_CC: dict[str, tuple[list[tuple[str, str]], str, str]] = {
    "virtual-function": ([("std::string(n, 'w')", "std::string(n, 'b')")],
                         "bb 2 twice 4 call 2", "error negative call 3"),
    "lambda": ([('what + " " +', 'what + "/" +')], "ww/2 twice 4 call 2", "error negative call 3"),
    "template": ([("return x + x;", "return x + x + x;")], "ww 2 twice 6 call 2", "error negative call 3"),
    "new-instance": ([("std::to_string(doubled);", "twice(std::to_string(doubled));")],
                     "ww 2 twice 44 call 2", "error negative call 3"),
    "exception": ([('throw std::out_of_range("negative");', 'throw std::out_of_range("below zero");')],
                  "ww 2 twice 4 call 2", "error below zero call 3"),
    "exception-type": ([('throw std::out_of_range("negative");', 'throw std::invalid_argument("not natural");')],
                       "ww 2 twice 4 call 2", "error not natural call 3"),
    "new-method": ([(DOG, DOG + "\n  int legs() const { return 4; }"), LEGS_OF_DOG],
                   "ww 2 twice 4 call 6", "error negative call 11"),
    "new-virtual-function": ([(DOG, DOG + "\n  virtual int legs() const { return 4; }"), LEGS_OF_DOG],
                             "ww 2 twice 4 call 6", "error negative call 11"),
    "new-virtual-function-of-a-base": ([(SILENCE, SILENCE + "\n  virtual int legs() const { return 2; }"),
                                        (DOG, DOG + "\n  int legs() const override { return 4; }"), LEGS_OF_DOG],
                                       "ww 2 twice 4 call 6", "error negative call 11"),
    "override-removed": ([("  std::string sound(int n) const override { return std::string(n, 'w'); }\n", "")],
                         "silence 2 twice 4 call 2", "error negative call 3"),
    "new-container": ([('"negative"', 'std::map<int, std::string>{{n, "minus"}}.at(n)')],
                      "ww 2 twice 4 call 2", "error minus call 3"),
    "new-object": ([("// more code here", "static std::vector<int> many(std::getenv(\"HOME\") ? 3 : 3);"),
                    ("calls++;", "calls += many.size();")], "ww 2 twice 4 call 4", "error negative call 7"),
}


@pytest.mark.parametrize("kind", TAKEN_CC)
def test_taken_in_cc(project: Workspace, kind: str) -> None:
    edits, two, negative = TAKEN_CC[kind]
    with project.start(["build/in_cc"]) as program:
        assert ask(program, "2") == "ww 2 twice 4 call 1"
        make(project, "src/b.cc", edits)
        project.scons("hotpatch")
        assert (ask(program, "2"), ask(program, "-1")) == (two, negative)
        assert (two, negative) != ("ww 2 twice 4 call 2", "error negative call 3")
        assert program.finish() == 0


REFUSED_CC: dict[str, tuple[list[tuple[str, str]], str]] = {
    "virtual-function-in-between": ([(SILENCE, "  virtual int legs() const { return 2; }\n" + SILENCE),
                                     ("calls++;", "calls += animal.legs();")],
                                    "the virtual functions of struct Animal changed: place 2 of its table was"),
    "virtual-function-renamed": ([(SILENCE, SILENCE.replace("sound", "noise")),
                                  ("sound(int n) const override", "noise(int n) const override"),
                                  ("animal.sound(n)", "animal.noise(n)")],
                                 "the virtual functions of struct Animal changed: place 2 of its table was"),
    "new-member": ([(DOG, DOG + "\n  int legs = 4;")], "the layout of type struct Dog changed "
                   "(was struct 8 bytes, is struct 16 bytes; new: `int legs` at 8), used by src/b.o"),
    "dynamic-initialiser": ([("static int calls;", "static int calls = std::getenv(\"HOME\") ? 3 : 4;")],
                            "calls, which lives in the process, would be initialised by code"),
}


@pytest.mark.parametrize("kind", REFUSED_CC)
def test_refused_in_cc(project: Workspace, kind: str) -> None:
    with project.start(["build/in_cc"]) as program:
        assert ask(program, "2") == "ww 2 twice 4 call 1"
        edits, reason = REFUSED_CC[kind]
        make(project, "src/b.cc", edits)
        refused = project.scons("hotpatch", code=2).text
        assert "src/b.o: " in refused and reason in refused and "default_delete" not in refused
        assert project.status(program)["images"][0]["generation"] == 0
        assert ask(program, "2") == "ww 2 twice 4 call 2"


ASSERTS = r"""
#include <assert.h>
#include <stdio.h>
/* above */
int note(const char *file, int line);
int checked(int n) { assert(n < 100); note(__FILE__, __LINE__); return n * 10; }
int answered(int n) { note("answered", 40); return n + 7; }
const char *since(void) { return "since " __DATE__ " " __TIME__; }
const char built[] = __DATE__ " " __TIME__, *const when = __TIME__;
"""
ASSERTS_MAIN = r"""
#include <stdio.h>
#include <stdlib.h>
int noted;
int note(const char *file, int line) { noted = line; return *file; }
int checked(int n);
int answered(int n);
const char *since(void);
int main(void)
{
  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    int a = checked(atoi(line)), at = noted, b = answered(atoi(line));
    printf("%d at %d, %d at %d, %d\n", a, at, b, noted, since()[0]);
    fflush(stdout);
  }
  return 0;
}
"""


@pytest.mark.parametrize("flags", ["-O0 -g", "-O2 -g"])
def test_asserts_that_only_moved_are_nothing(tmp_path: Path, flags: str) -> None:
    """Lines move, the time of compilation passes: nothing changed, also after a patch. What else changes, does."""
    (tmp_path / "from/src").mkdir(parents=True)
    sconstruct = SCONSTRUCT.rpartition("env.Program")[0].replace("['-O2', '-g']", repr(flags.split())).replace("in_c", "asserts")
    for name, text in (("SConstruct", sconstruct), ("src/a.c", ASSERTS), ("src/m.c", ASSERTS_MAIN)):
        (tmp_path / "from" / name).write_text(text)
    with workspace(tmp_path / "from", tmp_path / "project") as work:
        work.scons()
        with work.start(["build/asserts"]) as program:
            assert ask(program, "3") == "30 at 6, 10 at 40, 115"
            make(work, "src/a.c", [("/* above */", "\n\n/* above */")])
            assert "nothing changed" in work.scons("hotpatch").text
            make(work, "src/a.c", [("/* above */", "\n/* above */"), ('"answered", 40', '"answered", 43')])
            work.scons("hotpatch")
            assert work.status(program)["images"][0]["generation"] == 1
            assert ask(program, "3") == "30 at 6, 10 at 43, 115", "43 is no line of its own; `checked` stays"
            make(work, "src/a.c", [("n * 10", "n * 20")])
            work.scons("hotpatch")
            assert ask(program, "3") == "60 at 9, 10 at 43, 115"
            make(work, "src/a.c", [("/* above */", "\n/* above */")])
            assert "nothing changed" in work.scons("hotpatch").text, "`checked` came with a payload"
            assert work.status(program)["images"][0]["generation"] == 2
            assert ask(program, "3") == "60 at 9, 10 at 43, 115"
