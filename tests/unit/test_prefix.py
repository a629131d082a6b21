"""Units whose includes were compiled before: their objects are what a plain compile makes, or that is found out."""
from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import run

import pytest

from hotreload_tool import compiler, elf
from hotreload_tool.instrument import Options, instrument
from hotreload_tool.noise import NewObject
from hotreload_tool.objectmap import ObjectMap
from hotreload_tool.prefix import agreement, inputs, screen, text
from hotreload_tool.prefix.session import Attempt, Prefixes
from hotreload_tool.prefix.unit import Command, unit_of

OURS = {"own.h": """
#pragma once
#include "nested/deep.h"
inline int own(int n) { static int calls; return deep(n) + ++calls; }
inline const char *own_file() { return __FILE__; }
enum { OWN_COUNTER = __COUNTER__ };
""",
        "nested/deep.h": "inline int deep(int n) { return n * 3 + __LINE__; }\n"
                         "inline const char *deep_file() { return __FILE__; }\n",
        "unguarded.h": "MAKE(one)\nMAKE(two)\n", "other/third.h": "static inline int third(void) { return 3; }\n"}

STANDARD = """// std
#include <algorithm>
#include <cassert>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace { int hidden = 3; struct Local { int v; }; }
static int counted;
int value(int n) { assert(n > 0); static int calls; return n * 2 + hidden++ + ++calls + counted++; }
std::map<std::string, int> names;
int add(const std::string &s, int n)
{
  names[s] += n;
  std::vector<int> v{n, 2, 3};
  std::sort(v.begin(), v.end(), [](int a, int b) { return a > b; });
  return v[0] + int(names.size()) + __LINE__ + __COUNTER__;
}
std::function<int(int)> doubled = [](int x) { Local l{x}; return l.v + value(x); };
int tries(const std::string &s)
{
  try {
    return std::stoi(s);
  } catch (const std::exception &e) {
    std::cerr << e.what() << __FILE__ << '\\n';
    throw;
  }
}
"""
TEMPLATES = """/* A licence of several lines,
 * with #include <nothing> in it */
#define WIDTH \\
  7
#if defined(__cplusplus) && WIDTH > 3    // that goes on
# include <array>
# include <stdexcept>
#else
# error "never"
#endif
#define MAKE(x) inline int x() { static int n = __LINE__; return n++; }
#include "unguarded.h"
#include "own.h"       /* ours */

template <typename T, int N> struct Ring {
  std::array<T, N> all{};
  static inline int made = 0;
  static thread_local int mine;
  Ring() { ++made; }
  virtual ~Ring() { --made; }
  virtual T at(int n) { if (n >= N) throw std::out_of_range(own_file()); return all[n]; }
};
template <typename T, int N> thread_local int Ring<T, N>::mine = N;
template struct Ring<long, WIDTH>;
struct Wide : Ring<int, 4> { int at(int n) override { return own(n) + OWN_COUNTER + Ring<int, 4>::at(n) + mine; } };
Ring<int, 4> *make() { return new Wide; }
int counters() { return __COUNTER__ + __COUNTER__ * 100 + one() + two(); }
const char *where() { return __FILE__; }
const char *deeper() { return deep_file(); }
"""
IN_C = """
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "other/third.h"
struct pair { int a; char *b; };
static struct pair *last;
static int helper(int n) { static int calls; assert(n != 7); return n + ++calls + third(); }
int uses(struct pair *p, int n) { last = p; return helper(n) + (int)strlen(p->b) + __LINE__ + __COUNTER__; }
#include <math.h>
int says(void) { fprintf(stderr, "%s:%d\\n", __FILE__, __LINE__); return last ? last->a : abs(-3); }
"""
UNITS = {"standard.cpp": (STANDARD, "return n * 2", "\nreturn n * 5"),
         "templates.cc": (TEMPLATES, "{ return __COUNTER__", "{\nreturn 7"),
         "plain.c": (IN_C, "return n +", "\nreturn 4 * n +")}      # and an edit that changes lines too
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]


class Place:
    """A source folder below the folder in which compilers run, and what they make."""

    def __init__(self, top: Path, driver: str, prefixes: Prefixes) -> None:
        self.top, self.driver, self.prefixes = top, driver, prefixes
        for name, content in OURS.items():
            self.write(f"src/{name}", content)

    def write(self, name: str, content: str) -> None:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def command(self, source: str, *options: str, cwd: str = ".") -> Command:
        is_c = source.endswith(".c")
        driver = self.driver if is_c else {"gcc": "g++", "clang": "clang++"}[self.driver]
        ours = compiler.flags([driver], "c" if is_c else "c++", os.environ)
        return Command.of([driver, "-O2", *([] if is_c else ["-std=c++17"]), *options, *ours, "-c", "-o", "plain.o", source],
                          str(self.top / cwd), os.environ)

    def prepare(self, command: Command) -> None:
        """As soon as the headers are so old that they can be told from ones written meanwhile."""
        deadline = time.monotonic() + 60
        while not self.prefixes.prepare(command):
            assert "was written while it was read" in self.prefixes.why(command), self.prefixes.why(command)
            assert time.monotonic() < deadline

    def plain(self, command: Command) -> Path:
        run(command.argv, cwd=command.cwd, check=True, timeout=120)
        return Path(command.cwd) / "plain.o"

    def attempt(self, command: Command, trial: bool = False) -> Attempt:
        attempt = self.prefixes.compile(command, str(self.top / "quick.o"), trial)
        assert attempt is not None, self.prefixes.why(command)
        return attempt

    def prove(self, command: Command) -> None:
        self.prepare(command)
        attempt = self.attempt(command, trial=True)
        verdict = self.prefixes.judge(attempt, mapped(Path(attempt.output)), mapped(self.plain(command)))
        assert verdict.agrees, verdict.reason


@pytest.fixture
def prefixes(tmp_path: Path) -> Iterator[Prefixes]:
    made = Prefixes(str(tmp_path / "state"))
    yield made
    made.close()
    assert not os.listdir(tmp_path / "state")


@pytest.fixture(params=COMPILERS)
def place(request: pytest.FixtureRequest, tmp_path: Path, prefixes: Prefixes) -> Place:
    return Place(tmp_path / "tree", request.param, prefixes)


@pytest.fixture
def simple(tmp_path: Path, prefixes: Prefixes) -> Place:
    """Where it does not matter which compiler it is."""
    return Place(tmp_path / "tree", "gcc", prefixes)


def mapped(path: Path) -> ObjectMap:
    return instrument(path.read_bytes(), "unit.o", Options(), str(path))[1]


def lines_of(path: Path) -> dict[str, list[list[int]]]:
    """Source lines of each byte of each function, as `noise.py` reads them."""
    made = NewObject(path)
    functions = [s for s in made.file.symbols if s.defined and s.type == elf.STT_FUNC]
    return {f.name: [sorted(made.lines.of_object(str(f.shndx), f.value + at)) for at in range(f.size)] for f in functions}


# ---- equal -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", UNITS)
def test_an_object_with_a_prefix_is_what_the_plain_compile_makes(place: Place, source: str) -> None:
    content, old, new = UNITS[source]
    place.write(f"src/{source}", content)
    command = place.command(f"src/{source}", "-Isrc")
    place.prove(command)
    place.write(f"src/{source}", content.replace(old, new))
    before, plain, quick = mapped(place.top / "plain.o"), place.plain(command), Path(place.attempt(command).output)
    assert agreement.differences(mapped(quick), mapped(plain)) == []
    assert agreement.differences(mapped(quick), before) != []              # the edit is in it
    assert lines_of(quick) == lines_of(plain) != {}
    if place.driver == "gcc" and source != "standard.cpp":
        assert quick.read_bytes() == plain.read_bytes()                     # debug information too


LITTLE = """#include "own.h"
#include <stddef.h>
const char *where() { return __FILE__; }
const char *whose() { return own_file(); }
const char *deepest() { return deep_file(); }
int little(int n) { return own(n) + OWN_COUNTER + __LINE__; }
"""


@pytest.mark.parametrize(("source", "cwd"), [("little.cpp", "src"), ("./little.cpp", "src"), ("../src/little.cpp", "src"),
                                             ("src/../src/little.cpp", "."), ("{top}/src/little.cpp", ".")])
def test_names_of_files_are_as_they_would_be(place: Place, source: str, cwd: str) -> None:
    place.write("src/little.cpp", LITTLE)
    command = place.command(source.format(top=place.top), cwd=cwd)
    place.prove(command)
    quick = mapped(Path(place.attempt(command).output))
    assert agreement.differences(quick, mapped(place.plain(command))) == []


@pytest.mark.parametrize("options", [("-O0", "-g3"), ("-fPIC", "-std=c++20", "-fvisibility=hidden", "-fno-exceptions"),
                                     ("-MD", "-MF", "made.d", "-DX=\"a b\"", "-pthread", "-iquote", "other", "-Wall", "-Werror")])
def test_options_of_the_compile_hold(place: Place, options: Sequence[str]) -> None:
    place.write("src/little.cpp", LITTLE)
    command = place.command("src/little.cpp", *options)
    place.prepare(command)
    made = place.attempt(command, trial=True)
    assert not (place.top / "made.d").exists()                # the plain compile writes it
    assert agreement.differences(mapped(Path(made.output)), mapped(place.plain(command))) == []


# ---- out of date -----------------------------------------------------------------------------------------------------


def proven_little(place: Place, *options: str) -> Command:
    place.write("src/little.cpp", LITTLE)
    command = place.command("src/little.cpp", *options)
    place.prove(command)
    assert place.prefixes.is_ready(command)
    return command


def test_a_changed_header_is_never_overlooked(place: Place) -> None:
    command = proven_little(place)
    header = place.top / "src/nested/deep.h"
    was = header.stat()
    header.write_text(OURS["nested/deep.h"].replace("3", "4"))
    os.utime(header, ns=(was.st_atime_ns, was.st_mtime_ns))           # as large and, it says, as old as before
    assert place.prefixes.compile(command, str(place.top / "quick.o")) is None
    assert place.prefixes.why(command) == f"{header} changed"
    place.prove(command)
    place.plain(command)
    assert agreement.differences(mapped(Path(place.attempt(command).output)), mapped(place.top / "plain.o")) == []


def test_a_header_that_hides_another_is_never_overlooked(simple: Place) -> None:
    (simple.top / "first").mkdir(parents=True)
    simple.write("second/found.h", "enum { FOUND = 2 };\n")
    simple.write("src/finds.cpp", "#include <found.h>\nint finds() { return FOUND; }\n")
    command = simple.command("src/finds.cpp", "-Ifirst", "-Isecond")
    simple.prove(command)
    simple.write("first/finds.o", "")                                  # no header: nothing changes
    assert simple.prefixes.compile(command, str(simple.top / "quick.o")) is not None
    simple.write("first/found.h", "enum { FOUND = 1 };\n")
    assert simple.prefixes.compile(command, str(simple.top / "quick.o")) is None
    assert simple.prefixes.why(command) == f"{simple.top}/first changed"


def test_other_includes_are_never_overlooked(simple: Place) -> None:
    command = proven_little(simple)
    simple.write("src/little.cpp", LITTLE.replace("<stddef.h>", "<string.h>"))
    assert simple.prefixes.compile(command, str(simple.top / "quick.o")) is None
    assert simple.prefixes.why(command) == "the list of its includes changed"


def test_a_header_written_while_it_is_read_is_no_input(tmp_path: Path) -> None:
    header = tmp_path / "h.h"
    header.write_text("")
    written = header.stat().st_ctime_ns
    assert inputs.Inputs([str(header)], [], written).changed_meanwhile() == str(header)
    assert inputs.Inputs([str(header)], [], written + 10**9).changed_meanwhile() is None
    assert inputs.Inputs([str(tmp_path / "gone.h")], [], 0).changed_meanwhile() is not None


def compiled_prefix(place: Place) -> Path:
    return next(path for path in (place.top.parent / "state").rglob("*") if path.suffix in (".gch", ".pch"))


def test_a_damaged_prefix_is_not_used(place: Place) -> None:
    command = proven_little(place)
    path = compiled_prefix(place)
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2])
    assert place.prefixes.compile(command, str(place.top / "quick.o")) is None
    assert place.prefixes.why(command) == f"{path} changed"


def test_a_prefix_that_the_compiler_cannot_read_makes_nothing(place: Place) -> None:
    """Above all the compiler must not quietly read the text in its place."""
    command = proven_little(place)
    path = compiled_prefix(place)
    path.write_bytes(b"gpch" + bytes(4096))
    place.prefixes._state.ready[command].inputs.add(str(path))         # as if it had always been so
    attempt = place.attempt(command)
    assert not attempt.succeeded and not Path(attempt.output).exists()
    place.plain(command)
    verdict = place.prefixes.judge(attempt, None, mapped(place.top / "plain.o"))
    assert (verdict.agrees, verdict.reason) == (False, "only the plain compile succeeds")
    assert not place.prefixes.is_possible(command)


# ---- units that defy -------------------------------------------------------------------------------------------------

# What the compilers do not keep in a compiled header, here out of sight of `screen.py`.
DEFIES = {"gcc": ('#define LEAVES_IT _Pragma("pack(1)")\nLEAVES_IT\n', "struct S"),
          "clang": ('#define LEAVES_IT _Pragma("redefine_extname asked other")\nLEAVES_IT\n', "uses")}
USES = """#include "defies.h"
struct S { char a; long b; } s;
extern "C" int asked(void);
int uses(S *p) { return int(p->b) + asked(); }
"""


def test_an_object_that_differs_is_found_out_before_anybody_is_given_one(place: Place) -> None:
    place.write("src/defies.h", DEFIES[place.driver][0])
    place.write("src/uses.cpp", USES)
    command = place.command("src/uses.cpp", "-Wno-pragma-pack" if place.driver == "clang" else "-Wall")
    place.prepare(command)
    assert place.prefixes.compile(command, str(place.top / "quick.o")) is None
    assert place.prefixes.why(command) == "its first object was not compared yet"
    attempt = place.attempt(command, trial=True)
    verdict = place.prefixes.judge(attempt, mapped(Path(attempt.output)), mapped(place.plain(command)))
    assert not verdict.agrees and not verdict.overtaken and DEFIES[place.driver][1] in verdict.reason
    assert not place.prefixes.prepare(command) and place.prefixes.why(command) == verdict.reason


def test_what_is_proven_is_compared_all_the_same(simple: Place) -> None:
    """The first object says nothing of the header's pragma; the next edit brings a struct."""
    simple.write("src/defies.h", DEFIES["gcc"][0])
    simple.write("src/uses.cpp", '#include "defies.h"\nint uses() { return 1; }\n')
    command = simple.command("src/uses.cpp")
    simple.prove(command)
    simple.write("src/uses.cpp", USES)
    attempt = simple.attempt(command)
    verdict = simple.prefixes.judge(attempt, mapped(Path(attempt.output)), mapped(simple.plain(command)))
    assert not verdict.agrees and "struct S" in verdict.reason
    assert simple.prefixes.compile(command, str(simple.top / "quick.o")) is None


def test_an_edit_meanwhile_is_no_difference(simple: Place) -> None:
    command = proven_little(simple)
    attempt = simple.attempt(command)
    quick = mapped(Path(attempt.output))
    simple.write("src/little.cpp", LITTLE.replace("own(n)", "own(n + 1)"))
    verdict = simple.prefixes.judge(attempt, quick, mapped(simple.plain(command)))
    assert verdict.overtaken and not verdict.agrees
    assert simple.prefixes.is_ready(command)


def test_a_header_edited_meanwhile_is_no_difference(simple: Place) -> None:
    command = proven_little(simple)
    attempt = simple.attempt(command)
    quick = mapped(Path(attempt.output))
    simple.write("src/nested/deep.h", OURS["nested/deep.h"].replace("3", "4"))
    plain = mapped(simple.plain(command))
    assert agreement.differences(quick, plain) != []
    assert simple.prefixes.judge(attempt, quick, plain).overtaken
    assert simple.prefixes.is_possible(command)


def test_a_syntax_error_is_no_difference(simple: Place) -> None:
    command = proven_little(simple)
    simple.write("src/little.cpp", LITTLE + "int broken( {\n")
    attempt = simple.attempt(command)
    assert not attempt.succeeded
    assert simple.prefixes.judge(attempt, None, None).agrees
    assert simple.prefixes.is_ready(command)


@pytest.mark.parametrize(("header", "left"), [
    ("#pragma pack(1)\n", "#pragma pack"), ("#pragma pack(push, 1)\n", "#pragma pack"),
    ("#pragma pack(1)\n#pragma pack()\n", None),
    ("#pragma pack(push)\n#pragma pack(1)\nstruct s;\n # pragma pack(pop)\n", None),
    ("#pragma pack(push,1)\n#pragma pack(pop)\n", None),
    ("#pragma GCC optimize(\"O0\")\n", "#pragma optimize"), ("#pragma GCC target(\"avx2\")\n", "#pragma target"),
    ("#pragma GCC push_options\n#pragma GCC target(\"avx2\")\n#pragma GCC pop_options\n", None),
    ("#pragma omp target\n", None), ("#pragma GCC visibility push(hidden)\n", "#pragma visibility"),
    ("#pragma GCC visibility push(default)\n#pragma GCC visibility pop\n", None), ("#pragma once\n", None),
    ("#pragma redefine_extname a b\n", "#pragma redefine_extname"), ('_Pragma("pack(2)")\n', None),
    ("inline const char *made() { return __TIME__; }\n", "__TIME__")])
def test_headers_that_leave_something_in_force(tmp_path: Path, header: str, left: str | None) -> None:
    (tmp_path / "h.h").write_text(header)
    assert screen.left_open(str(tmp_path / "h.h")) == left


def test_a_unit_with_such_a_header_has_no_prefix(simple: Place) -> None:
    simple.write("src/defies.h", "#pragma pack(1)\n")
    simple.write("src/uses.cpp", USES)
    command = simple.command("src/uses.cpp")
    deadline = time.monotonic() + 60
    while not simple.prefixes.prepare(command) and "written while" in simple.prefixes.why(command):
        assert time.monotonic() < deadline
    assert simple.prefixes.why(command) == f"{simple.top}/src/defies.h has #pragma pack"


# ---- what has a prefix -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "lines"), [
    ("#include <a>\nint x;\n#include <b>\n", 1), ("// a\n\n#include <a>\n/* b\n c */ #include <b> // d\nint x;\n", 5),
    ("#define A 1\n#include <a>\n#define B 2\nint x;\n", 2),
    ("#if A\n#include <a>\n#endif\n#include <b>\n#if B\nint x;\n#endif\n", 4),
    ("#include <a>\n#if A\n#include <b>\nint x;\n#endif\n", 1),
    ("#ifdef A\n#include <a>\n#else\n#include <b>\n#endif\nint x;\n", 5),
    ("#include <a>\n#pragma once\n#include <b>\n", 1), ("#include <a//b>\n#include \"c/*d\"\nint x; /* */\n", 2),
    ("#include \\\n<a>\n#define X \\\n1\n#include X\nint x;\n", 5), ("#include <a>\n/* int\n", 1),
    ("#include <a>\n// goes on \\\n#include <b>\nint x;\n", 1), ("#include <a>\r\n#include <b>\r\nint x;\r\n", 2),
    ("#include <a>\n??=include <b>\n", 1), ("#include <a>\n#define R R\"(\n#include <b>\n)\"\n", 1),
    ("#include <a>", 1)])
def test_where_the_top_ends(source: str, lines: int) -> None:
    parts = text.split(source.encode(), "x.cpp")
    assert parts.top.decode() == "".join(source.splitlines(keepends=True)[:lines])
    assert parts.body == b"\n" * lines + source.encode()[len(parts.top):]


@pytest.mark.parametrize(("source", "why"), [
    ("int x;\n#include <a>\n", "no include"), ("#if A\n#include <a>\n", "no include"), ("", "no include"),
    ("#include <a>\n#include \"x.cpp\"\n", "itself"), ("#include <a>\n#include __FILE__\n", "__FILE__"),
    ("#include <a>\nint n = __INCLUDE_LEVEL__;\n", "__INCLUDE_LEVEL__"), ("\ufeff#include <a>\n", "plain text")])
def test_sources_without_a_prefix(source: str, why: str) -> None:
    with pytest.raises(text.Unsuitable, match=why):
        text.split(source.encode(), "x.cpp")


@pytest.mark.parametrize("words", [
    "g++ -c a.cpp b.cpp", "g++ a.cpp -o a", "g++ -c a.s -o a.o", "g++ -c a.cpp", "g++ -E a.cpp -o a.i",
    "g++ -include b.h -c a.cpp -o a.o",
    "g++ -save-temps -c a.cpp -o a.o", "g++ -x c++ -c a.txt -o a.o", "ccache g++ -c a.cpp -o a.o",
    "g++ -flto -c a.cpp -o a.o",
    "g++ -Wp,-MD,a.d -c a.cpp -o a.o", "g++ -fsanitize=address -c a.cpp -o a.o", "no-such-g++ -c a.cpp -o a.o",
    "true -c a.cpp -o a.o", "g++ -ffile-prefix-map=a=b -c a.cpp -o a.o", "g++ -c src//a.cpp -o a.o",
    "g++ -gsplit-dwarf -c a.cpp -o a.o", "g++ -fmodules-ts -c a.cpp -o a.o"])
def test_commands_without_a_prefix(words: str) -> None:
    with pytest.raises(text.Unsuitable):
        unit_of(Command.of(words.split(), "/", os.environ))


def test_prefixes_take_no_more_room_than_they_may(tmp_path: Path) -> None:
    small = Prefixes(str(tmp_path / "state"), most_bytes=1)
    place = Place(tmp_path / "tree", "gcc", small)
    commands = []
    for name in ("one.c", "two.c"):
        place.write(f"src/{name}", f"#include <stddef.h>\nint {name[:3]};\n")
        commands.append(place.command(f"src/{name}"))
        place.prepare(commands[-1])
    assert len(list((tmp_path / "state").rglob("*.gch"))) == 1
    assert small.compile(commands[0], str(tmp_path / "x.o"), trial=True) is None
    assert small.compile(commands[1], str(tmp_path / "x.o"), trial=True) is not None
    small.close()


def test_what_a_killed_session_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "999999999-abc").mkdir()
    (tmp_path / "other").mkdir()
    made = Prefixes(str(tmp_path))
    made.close()
    assert os.listdir(tmp_path) == ["other"]
    assert made.compile(Command.of(["true"], "/", {}), "x.o") is None
