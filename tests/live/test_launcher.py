"""`hotpatch cc` and `hotpatch bundle`: builds that SCons does not drive."""
from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotreload_tool import instrument
from livetools import HOTPATCH, REFUSED, Completed, Program, Workspace, clean_environment, run, runtime_directory

CC = [*HOTPATCH, "cc", "--"]
MAIN = r"""
#include <stdio.h>
#include "util.h"
__attribute__((noinline)) const char *greeting(const char *line) { return *line ? "hello" : "nobody"; }
int main(void)
{
  char line[80];
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin))
    printf("%s %d\n", greeting(line), count());
  return 0;
}
"""
UTIL = '#include "util.h"\nstatic int calls;\nint count(void)\n{\n  return ++calls;\n}\n'
HEADER = "#ifdef __cplusplus\nextern \"C\"\n#endif\nint count(void);\n"


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workspace]:
    """A directory with two sources, a makefile that names it as the top, and a runtime directory."""
    project = tmp_path / "project"
    project.mkdir()
    for name, text in {"main.c": MAIN, "util.c": UTIL, "util.h": HEADER, "Makefile": ""}.items():
        (project / name).write_text(text)
    with runtime_directory() as sockets:
        yield Workspace(project, clean_environment(HOTRELOAD_RUNTIME_DIR=str(sockets)))


def gcc(work: Workspace, words: str, compiler: str = "gcc", code: int | None = 0, stdin: str = "") -> Completed:
    return run([*CC, compiler, *shlex.split(words)], cwd=work.path, env=work.env, code=code, stdin=stdin)


def bundle(work: Workspace, base: str, new: str, output: str, *more: str, code: int = 0) -> Completed:
    return work.hotpatch("bundle", "--base", base, new, "-o", output, *more, code=code)


def patch(work: Workspace, program: Program, made: str) -> None:
    work.hotpatch("apply", made, "--pid", str(program.pid))


# ---- as the compiler itself ------------------------------------------------------------------------------------

_QUESTIONS = [
    "--version", "-dumpmachine", "-print-libgcc-file-name", "-v", "", "-E main.c", "-S main.c -o -", "-M main.c", "-MM main.c",
    "-fsyntax-only main.c", "-fsyntax-only broken.c", "-c broken.c", "-c broken.c -o x.o", "broken.c -o x", "-c missing.c",
    "missing.c -o x", "-c missing.c util.c", "broken.c util.c broken.c -o x", "-c warns.c -Wall -o x.o", "warns.c -Wall -o x",
    "-Werror -Wall -c warns.c", "-c main.c util.c -o x.o", "--no-such-option -c main.c", "-c util.o", "nowhere.o -o x",
    "-x c -E -", "-x c -c - -o x.o", "-x c - -o x", "@words", "-c", "-o x", "-c main.c -o nowhere/x.o", "-c main.c -o /dev/null"]


@pytest.mark.parametrize("words", _QUESTIONS, ids=[q or "nothing" for q in _QUESTIONS])
def test_says_what_the_compiler_says(work: Workspace, words: str) -> None:
    """Exit code, output, errors, and the names of the files that are made."""
    (work.path / "broken.c").write_text("int main(void) { return }\n")
    (work.path / "warns.c").write_text("int main(void) { int unused; return 0; }\n")
    (work.path / "words").write_text("-c main.c -o 'with space.o'")
    run(["gcc", "-c", "util.c"], cwd=work.path, code=0)
    shutil.copytree(work.path, work.path.parent / "bare")
    stdin = "int main(void) { return 0; }\n"
    ours = gcc(work, words, code=None, stdin=stdin)
    bare = run(["gcc", *shlex.split(words)], cwd=work.path.parent / "bare", env=work.env, stdin=stdin)
    assert (ours.code, ours.out, ours.err) == (bare.code, bare.out, bare.err)
    assert names(work.path) == names(work.path.parent / "bare")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".hotreload"}


@pytest.mark.parametrize("words, error", [
    ("util.c -o x", "undefined reference to `main'"), ("-c main.c -flto -o x.o", "compile without -flto"),
    ("main.c util.c -Xlinker -s -o x", "link it without -s"),
    ("main.c util.c -Xlinker -retain-symbols-file -Xlinker /dev/null -o x", "its symbol table was cut down")])
def test_errors_of_links_and_ours(work: Workspace, words: str, error: str) -> None:
    """Nothing is left of what failed, so that make tries again."""
    assert error in gcc(work, words, code=1).err
    assert names(work.path) == {"main.c", "util.c", "util.h", "Makefile"}


def test_a_compiler_that_is_not_there(work: Workspace) -> None:
    assert "no-such-compiler" in gcc(work, "-c main.c", "no-such-compiler", code=1).err
    assert run([*CC], cwd=work.path, env=work.env).code == 2


def test_probes_leave_nothing(work: Workspace) -> None:
    """What a configure script compiles, links and runs has nothing of ours in it, and no state is kept for it."""
    (work.path / "conftest.c").write_text("int main(void) { return 7; }\n")
    gcc(work, "-c conftest.c")
    assert instrument.carried_map(work.path / "conftest.o") is None
    gcc(work, "conftest.c -o conftest -lm")
    assert run([work.path / "conftest"]).code == 7
    assert not (work.path / ".hotreload").exists()


def test_switched_off(work: Workspace) -> None:
    work.env["HOTRELOAD"] = "0"
    gcc(work, "-c main.c")
    assert instrument.carried_map(work.path / "main.o") is None and not (work.path / ".hotreload").exists()


# ---- patches ---------------------------------------------------------------------------------------------------

_STEPS = ["gcc main.c util.c -o prog", "gcc -c main.c; gcc -c util.c; gcc main.o util.o -o prog",
          "gcc -c main.c util.c; gcc main.o util.o -o prog -no-pie", "g++ -x c++ main.c -x none util.o -o prog",
          "gcc -c util.c -o u.o; !ar rc libu.a u.o; !rm u.o; gcc main.c -L. -lu -o prog",
          "gcc -c util.c; !ar rcT libu.a util.o; gcc main.c libu.a -o prog",
          "gcc -c main.c util.c; gcc -r -nostdlib main.o util.o -o both.o; gcc both.o -o prog",
          "gcc @words", "gcc -c main.c -o sub/main.o; gcc sub/main.o util.c -o prog"]


def build(work: Workspace, steps: str) -> None:
    for step in steps.split("; "):
        if step.startswith("!"):
            run(shlex.split(step[1:]), cwd=work.path, code=0)
        else:
            compiler, _, words = step.partition(" ")
            gcc(work, words, compiler)


@pytest.mark.parametrize("steps", _STEPS)
def test_the_running_program_takes_the_second_build(work: Workspace, steps: str) -> None:
    (work.path / "sub").mkdir()
    (work.path / "words").write_text("main.c util.c -o prog")
    if "util.o" in steps and "-c" not in steps:
        gcc(work, "-c util.c")
    expect_patched(work, steps)


def expect_patched(work: Workspace, steps: str) -> None:
    """Build, start, edit, build, and the process that was started first takes the edit."""
    build(work, steps)
    shutil.copy(work.path / "prog", work.path / "base")
    with work.start(["base"]) as program:
        program.expect("^ready\n")
        program.ask("x", "^hello 1\n")
        work.edit("main.c", '"hello"', '"good day"')
        build(work, steps)
        made = bundle(work, "base", "prog", "1.hotpatch", "--json").json()
        assert made["generation"] == 1 and any("greeting" in name for name in made["changed"])
        patch(work, program, "1.hotpatch")
        program.ask("x", "^good day 2\n", reject="hello")
        assert program.finish() == 0


@pytest.mark.both_kinds
def test_one_bundle_after_another(work: Workspace) -> None:
    """The second one goes on where the first ended; without being told of it, it would be for another process."""
    gcc(work, "main.c util.c -o prog")
    shutil.copy(work.path / "prog", work.path / "base")
    with work.start(["base"]) as program:
        program.expect("^ready\n")
        for number, (before, text) in enumerate((("hello", "good day"), ("good day", "good night")), 1):
            work.edit("main.c", before, text)
            gcc(work, "main.c util.c -o prog")
            earlier = [word for n in range(1, number) for word in ("--after", f"{n}.hotpatch")]
            bundle(work, f"/proc/{program.pid}/exe", "prog", f"{number}.hotpatch", *earlier)
            patch(work, program, f"{number}.hotpatch")
            program.ask("x", rf"^{text} {number}\n", reject=before)
        assert [image["generation"] for image in work.status(program)["images"]] == [2]


def test_a_new_object_that_code_initialises(work: Workspace) -> None:
    """A bundle of two builds has a C++ compiler: the one that linked."""
    shutil.copy(work.path / "main.c", work.path / "main.cc")
    buffered = "setvbuf(stdout, NULL, _IOLBF, 0)"
    work.edit("main.cc", buffered, f"try {{ if ({buffered}) throw 1; }} catch (int) {{ }}")
    gcc(work, "main.cc -x c++ util.c -o prog", compiler="g++")
    shutil.copy(work.path / "prog", work.path / "base")
    with work.start(["base"]) as program:
        program.expect("^ready\n")
        program.ask("x", r"^hello 1\n")
        made = 'struct Made { const char *text; Made() { text = getenv("MADE") ? "was" : "made"; } };\nstatic Made made;\n'
        work.edit("main.cc", "__attribute__", f"#include <stdlib.h>\n{made}__attribute__")
        work.edit("main.cc", '"hello"', "made.text")
        gcc(work, "main.cc -x c++ util.c -o prog", compiler="g++")
        bundle(work, "base", "prog", "new.hotpatch")
        patch(work, program, "new.hotpatch")
        program.ask("x", r"^made 2\n", reject="hello")


def test_builds_in_two_directories(work: Workspace) -> None:
    """Base and new build need not share a directory; equal sources give no bundle."""
    gcc(work, "main.c util.c -o prog")
    other = work.path.parent / "another place"
    shutil.copytree(work.path, other, ignore=shutil.ignore_patterns(".hotreload", "prog"))
    second = Workspace(other, work.env)
    gcc(second, "main.c util.c -o prog")
    assert "nothing changed" in bundle(work, "prog", str(other / "prog"), "none.hotpatch").out
    assert not (work.path / "none.hotpatch").exists()
    second.edit("main.c", '"hello"', '"good day"')
    gcc(second, "main.c util.c -o prog")
    with work.start(["prog"]) as program:
        program.expect("^ready\n")
        bundle(work, "prog", str(other / "prog"), "1.hotpatch")
        patch(work, program, "1.hotpatch")
        program.ask("x", "^good day 1\n", reject="hello")


def test_a_shared_library(work: Workspace) -> None:
    build(work, "gcc -c -fPIC util.c; gcc -shared util.o -o libu.so -Wl,-z,defs; gcc main.c -L. -lu -Wl,-rpath,$ORIGIN -o prog")
    shutil.copy(work.path / "libu.so", work.path / "base.so")
    with work.start(["prog"]) as program:
        program.expect("^ready\n")
        program.ask("x", "^hello 1\n")
        (work.path / "libu.so").unlink()
        work.edit("util.c", "++calls", "100 + ++calls")
        build(work, "gcc -c -fPIC util.c; gcc -shared util.o -o libu.so -Wl,-z,defs")
        bundle(work, "base.so", "libu.so", "1.hotpatch")
        patch(work, program, "1.hotpatch")
        program.ask("x", r"^hello 102\n", reject="hello 2")


def test_a_refused_edit(work: Workspace) -> None:
    """With its reason, and no bundle."""
    gcc(work, "main.c util.c -o prog")
    shutil.copy(work.path / "prog", work.path / "base")
    work.edit("util.c", "static int calls;", "static long calls;")
    gcc(work, "main.c util.c -o prog")
    refused = bundle(work, "base", "prog", "1.hotpatch", code=REFUSED)
    assert "calls" in refused.err and not (work.path / "1.hotpatch").exists()


@pytest.mark.parametrize("archived", [False, True])
def test_a_change_in_what_is_not_instrumented(work: Workspace, archived: bool) -> None:
    """It would stay old in the process: refused, also where it comes out of a static library."""
    work.env["HOTRELOAD_EXCLUDE"] = "util.c"
    steps = "gcc -c main.c util.c; gcc main.o util.o -o prog"
    if archived:
        steps = "gcc -c main.c util.c; !ar rc libu.a util.o; gcc main.o libu.a -o prog"
    build(work, steps)
    shutil.copy(work.path / "prog", work.path / "base")
    work.edit("util.c", "++calls", "100 + ++calls")
    build(work, steps)
    refused = bundle(work, "base", "prog", "1.hotpatch", code=REFUSED)
    assert "it is left uninstrumented" in refused.err and "util.o" in refused.err


def test_what_is_compiled_out_of_sight_is_never_patched(work: Workspace) -> None:
    """-MMD with a link: the source is not instrumented, and whether it changed is not known."""
    build(work, "gcc -c util.c; gcc -MMD main.c util.o -o prog")
    shutil.copy(work.path / "prog", work.path / "base")
    work.edit("main.c", '"hello"', '"good day"')
    build(work, "gcc -MMD main.c util.o -o prog")
    refused = bundle(work, "base", "prog", "1.hotpatch", code=REFUSED)
    assert "main.c" in refused.err and "it is left uninstrumented" in refused.err


def test_files_that_change_after_the_link(work: Workspace) -> None:
    """A bundle is made from the objects that the image was linked from, or not at all."""
    gcc(work, "-c main.c util.c")
    gcc(work, "main.o util.o -o prog")
    shutil.copy(work.path / "prog", work.path / "base")
    work.edit("main.c", '"hello"', '"good day"')
    gcc(work, "-c main.c")
    gcc(work, "main.o util.o -o prog")
    work.edit("main.c", '"good day"', '"good night"')
    gcc(work, "-c main.c")
    assert "main.o: there is no object of this name" in bundle(work, "base", "prog", "1.hotpatch", code=1).err


def test_an_image_of_unknown_origin(work: Workspace) -> None:
    gcc(work, "main.c util.c -o prog")
    shutil.rmtree(work.path / ".hotreload")
    assert "not known how this image was linked" in bundle(work, "prog", "prog", "1.hotpatch", code=1).err
    run(["gcc", "main.c", "util.c", "-o", "plain"], cwd=work.path, code=0)
    assert "holds no instrumented object" in bundle(work, "plain", "plain", "1.hotpatch", code=REFUSED).err


def test_names_are_relative_to_the_top_of_the_build(work: Workspace) -> None:
    """From a directory below, as recursive makes compile; and to the directory that HOTRELOAD_TOP names."""
    (work.path / "sub").mkdir()
    for top, expected in (("", "sub/x.o"), (str(work.path / "sub"), "x.o"), (str(work.path.parent), "project/sub/x.o")):
        env = {**work.env, **({"HOTRELOAD_TOP": top} if top else {})}
        run([*CC, "gcc", "-c", "../util.c", "-o", "x.o"], cwd=work.path / "sub", env=env, code=0)
        described = instrument.carried_map(work.path / "sub/x.o")
        assert described is not None and described.object == expected


def test_clang(work: Workspace) -> None:
    if not shutil.which("clang"):
        pytest.skip("clang is not installed")
    expect_patched(work, "clang -c util.c; clang -O1 main.c util.o -o prog")


def test_state_in_another_place(work: Workspace) -> None:
    """HOTRELOAD_DIR: nothing is kept beside the sources."""
    work.env["HOTRELOAD_DIR"] = str(work.path.parent / "state")
    expect_patched(work, "gcc main.c util.c -o prog")
    assert not (work.path / ".hotreload").exists()


def test_two_builds_by_scons(work: Workspace) -> None:
    """What SCons linked is as good: both ways of building file their images alike."""
    (work.path / "SConstruct").write_text('env = Environment(tools=["default", "hotreload"])\n'
                                          'env.Program("prog", ["main.c", env.StaticLibrary("u", "util.c")])\n')
    work.scons()
    shutil.copy(work.path / "prog", work.path / "base")
    work.edit("main.c", '"hello"', '"good day"')
    work.scons()
    with work.start(["base"]) as program:
        program.expect("^ready\n")
        bundle(work, "base", "prog", "1.hotpatch")
        patch(work, program, "1.hotpatch")
        program.ask("x", "^good day 1\n", reject="hello")


def test_a_program_without_symbols(work: Workspace) -> None:
    """-s takes them out of the image, not out of what bundles are made from. Lists of symbols to keep are not followed."""
    expect_patched(work, "gcc -s main.c util.c -o prog -Wl,-retain-symbols-file -Wl,/dev/null")
    assert "no symbols" in run(["nm", work.path / "prog"]).err


def test_libraries_that_are_scripts_or_shared(work: Workspace) -> None:
    """-lNAME may find a text for the linker, or a shared library beside a static one: neither is opened as an archive."""
    build(work, "gcc -c -fPIC util.c; gcc -shared util.o -o libu.so; gcc -c main.c")
    (work.path / "libu.a").write_text("no archive, and not what the linker takes\n")
    (work.path / "libscript.a").write_text("GROUP ( libreal.a )\n")
    run(["ar", "rc", "libreal.a", "util.o"], cwd=work.path, code=0)
    build(work, "gcc main.o -L. -lu -Wl,-rpath,$ORIGIN -o first; gcc main.o -L. -lscript -o second")
    for name in ("first", "second"):
        with work.start([name]) as program:
            program.expect("^ready\n")
            program.ask("x", "^hello 1\n")


def test_settings_that_make_no_sense(work: Workspace) -> None:
    work.env["HOTRELOAD"] = "perhaps"
    assert "HOTRELOAD: 'perhaps' is neither yes nor no" in gcc(work, "-c main.c", code=1).err
    work.env.update(HOTRELOAD="1", HOTRELOAD_PAD="much")
    assert "HOTRELOAD_PAD" in gcc(work, "-c main.c", code=1).err and not (work.path / "main.o").exists()


def test_several_compilers_at_once(work: Workspace) -> None:
    """The first links of a build all need the runtime; it is made once."""
    (work.path / "Makefile").write_text("all: $(foreach n,1 2 3 4,prog$(n))\nprog%: main.c util.c\n\t$(CC) $^ -o $@\n")
    del work.env["HOTRELOAD_RUNTIME_CACHE"]
    run(["make", "-j4", f"CC={shlex.join([*CC, 'gcc'])}"], cwd=work.path, env=work.env, code=0)
    assert len(os.listdir(work.path / ".hotreload/runtime")) == 1
    for number in range(1, 5):
        with work.start([f"prog{number}"]) as program:
            program.expect("^ready\n")
            assert len(work.status(program)["images"]) == 1


def test_projects_share_the_compiled_runtime(work: Workspace) -> None:
    work.env["HOTRELOAD_RUNTIME_CACHE"] = str(work.path / "shared")
    for name in ("one", "two"):
        work.env["HOTRELOAD_DIR"] = f".hotreload-{name}"
        gcc(work, f"main.c util.c -o {name}")
        assert not (work.path / f".hotreload-{name}/runtime").exists()
        with work.start([name]) as program:
            program.expect("^ready\n")
            assert len(work.status(program)["images"]) == 1
    assert len(os.listdir(work.path / "shared/launcher")) == 1


# ---- beside other tools --------------------------------------------------------------------------------------------

_TYPES = """
struct point { int x, y; struct point *next; };
struct box { struct point corner; struct { int wide, high; } size; };
struct box *make(struct point *at, int wide);
"""


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not there")
def test_under_valgrind(work: Workspace) -> None:
    """Older ones read the debug information of such a program only as DWARF 4."""
    (work.path / "util.h").write_text(HEADER + _TYPES)
    (work.path / "main.c").write_text(MAIN + "int wide(struct box *b) { return b->size.wide + b->corner.next->x; }\n")
    gcc(work, "-O2 -gdwarf-4 main.c util.c -o program")
    done = run(["valgrind", "--error-exitcode=9", "./program"], cwd=work.path, env=work.env, code=0, stdin="say\n")
    assert done.out == "ready\nhello 1\n"
    assert "ERROR SUMMARY: 0 errors" in done.err
