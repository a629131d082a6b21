"""`hotpatch watch`: whatever is saved, however it is saved, the running program ends with what the sources say.

All waits are for lines: what the session says, and what the program answers. The compiler is a script that can be held, so
that a test can save while a build is under way.
"""
from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from livetools import Workspace, clean_environment, runtime_directory
from watching import LIVE, MAIN, UNIT_H, WATCHING, Watched, watched_program

SCONSTRUCT = """\
DefaultEnvironment(tools=[])
env = Environment(tools=['gcc', 'g++', 'gnulink', 'ar', 'hotreload'], CC='./cc.sh', CCFLAGS=['-O1', '-g'],
                  HOTRELOAD_ARENA='16M', CPPPATH=['src'])
env.Program('build/prog', Glob('src/*.c'))
"""
# Says HELD and waits for a byte in the pipe "gate", where there is one.
CC = """\
#!/bin/sh
if [ -p gate ]; then echo HELD; read -r line < gate; fi
exec gcc "$@"
"""
ONE = '#include "unit.h"\nint one(void) { return 11 * SCALE; }\n'
TWO = """\
#include "unit.h"
static struct state state;
int two(void) { return 22 * SCALE; }
int kept(void) { return ++state.n; }
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("watched") / "project"
    (path / "src").mkdir(parents=True)
    (path / "cc.sh").write_text(CC)
    (path / "cc.sh").chmod(0o755)
    for name, text in {"SConstruct": SCONSTRUCT, "src/main.c": MAIN, "src/unit.h": UNIT_H, "src/one.c": ONE,
                       "src/two.c": TWO}.items():
        (path / name).write_text(text)
    Workspace(path).scons()
    return path


@pytest.fixture
def work(built: Path, tmp_path: Path) -> Iterator[Workspace]:
    path = tmp_path / "project"
    shutil.copytree(built, path, symlinks=True)
    with runtime_directory() as agents:
        yield Workspace(path, clean_environment(HOTRELOAD_RUNTIME_DIR=str(agents)))


@pytest.fixture
def watched(work: Workspace) -> Iterator[Watched]:
    with watched_program(work) as watched:
        yield watched


def test_a_save_goes_live_and_leaves_what_a_build_would(watched: Watched) -> None:
    assert watched.answers(11, 22) == 1
    assert watched.goes_live("one.c", "11", "12", 1, 12, 22) == 2
    watched.end()


def test_a_mistake_is_said_and_its_correction_goes_live(watched: Watched) -> None:
    watched.save("one.c", "return 11", "retrun 11")
    watched.session.expect(r"not compiled: src/one\.o; nothing was patched", reject="live")
    watched.save("two.c", "22", "23")
    watched.session.expect(r"not compiled: src/one\.o; nothing was patched", reject="live")    # no edit is half there
    assert watched.answers(11, 22) == 1
    assert watched.goes_live("one.c", "retrun 11", "return 12", 1, 12, 23) == 2
    watched.end()


def test_a_refused_edit_and_its_correction(watched: Watched) -> None:
    assert watched.answers(11, 22) == 1
    watched.save("unit.h", "int n;", "int before, n;")
    watched.session.expect("refused, nothing changed", reject="live")
    watched.session.expect("struct state")
    assert watched.answers(11, 22) == 2
    watched.save("unit.h", "int before, n;", "int n;")
    watched.session.expect("nothing changed")
    assert watched.goes_live("two.c", "22", "24", 1, 11, 24) == 3
    watched.end()


def test_a_header_that_many_units_include(watched: Watched) -> None:
    assert watched.goes_live("unit.h", "SCALE 1", "SCALE 10", 1, 110, 220) == 1      # both units in one step
    watched.end()


def test_edits_within_one_second_of_the_same_size(watched: Watched) -> None:
    """Only the content tells them apart; the time of change is set to the same whole second."""
    source = watched.path / "src/one.c"
    moment = int(source.stat().st_mtime) + 1
    for generation, value in enumerate((12, 13, 14, 11), 1):
        source.write_text(ONE.replace("11", str(value)))
        os.utime(source, (moment, moment))
        watched.live(generation)
        watched.answers(value, 22)
    watched.end()


def test_saves_in_quick_succession_end_with_the_last(watched: Watched) -> None:
    for value in range(12, 40):
        (watched.path / "src/one.c").write_text(ONE.replace("11", str(value)))
        (watched.path / "src/two.c").write_text(TWO.replace("22", str(value + 100)))
    (watched.path / "src/one.c").write_text(ONE.replace("return 11", "return 1000 + 11"))
    while not watched.program.ask("x", r"one (\d+) two (\d+) kept \d+\n").groups() == ("1011", "139"):
        watched.session.expect(LIVE)                      # it is on its way; never more than the saves
    watched.end()


def test_a_save_during_a_build_is_taken_along(watched: Watched) -> None:
    os.mkfifo(watched.path / "gate")
    gate = os.open(watched.path / "gate", os.O_RDWR)      # stays open, so that what is written to it waits to be read
    try:
        watched.save("one.c", "11", "12")
        watched.session.expect("HELD")
        watched.save("one.c", "12", "13")
        watched.save("two.c", "22", "23")
        os.write(gate, b"go\n" * 8)
        watched.live(1)                                   # what was saved meanwhile is in the first generation
        assert watched.answers(13, 23) == 1
        (watched.path / "gate").unlink()
    finally:
        os.close(gate)
    watched.end()


def test_files_that_are_renamed_into_place(watched: Watched) -> None:
    for generation, value in enumerate((12, 13), 1):
        fresh = watched.path / "src/.one.c.tmp"
        fresh.write_text(ONE.replace("11", str(value)))
        fresh.replace(watched.path / "src/one.c")
        watched.live(generation)
        watched.answers(value, 22)
    watched.end()


def test_a_file_that_is_removed_and_made_again(watched: Watched) -> None:
    source = watched.path / "src/one.c"
    source.unlink()
    source.write_text(ONE.replace("11", "12"))
    watched.live(1, reject="again")
    watched.answers(12, 22)
    watched.end()


def test_programs_that_start_and_end_meanwhile(watched: Watched) -> None:
    watched.save("one.c", "11", "12")
    watched.live(1)
    with watched.work.start(["build/prog"]) as late:      # of the build that the first one runs: brought up to date at once
        watched.live(1)
        late.expect("ready")
        late.ask("x", r"one 12 two 22 kept 1\n", reject="one 11")
        watched.program.kill()
        watched.save("one.c", "12", "13")
        watched.live(2)
        late.ask("x", r"one 13 two 22 kept 2\n", reject="one 12")
    watched.save("one.c", "13", "14")
    watched.session.expect(r"no process runs this build; generation 3 is in")
    watched.end()


def test_another_sconstruct_is_read_again(watched: Watched) -> None:
    script = watched.path / "SConstruct"
    script.write_text(SCONSTRUCT + "# another\n")
    watched.session.expect("SConstruct changed; reading everything again")
    watched.session.expect(WATCHING)
    watched.save("one.c", "11", "12")
    watched.live(1)
    script.write_text("env = Environment(\n")
    watched.session.expect("the build cannot be read; waiting for the next save")
    script.write_text(SCONSTRUCT)
    watched.session.expect(WATCHING)
    watched.goes_live("one.c", "12", "13", 2, 13, 22)
    watched.end()


def test_a_new_source_of_the_file_list(watched: Watched) -> None:
    (watched.path / "src/three.c").write_text("int three(void) { return 33; }\n")
    watched.session.expect(r"src/three\.c is new; reading everything again")
    watched.session.expect(WATCHING)
    (watched.path / "src/one.c").write_text("int three(void);\n" + ONE.replace("return 11", "return three()"))
    watched.session.expect(LIVE)
    watched.answers(33, 22)
    watched.end()


def test_a_header_that_is_made_after_its_include(watched: Watched) -> None:
    (watched.path / "src/one.c").write_text('#include "value.h"\n' + ONE.replace("11", "VALUE"))
    watched.session.expect("not compiled")
    (watched.path / "src/value.h").write_text("#define VALUE 12\n")
    watched.session.expect(LIVE)
    watched.answers(12, 22)
    (watched.path / "src/value.h").write_text("#define VALUE 13\n")
    watched.session.expect(LIVE)
    watched.answers(13, 22)
    watched.end()


def test_somebody_else_builds_in_the_tree(watched: Watched) -> None:
    watched.save("one.c", "11", "12")
    watched.live(1)
    other = watched.work.scons("hotpatch", "build/prog")
    assert other.code == 0
    watched.save("one.c", "12", "13")
    watched.session.expect("another build ran in this tree; reading everything again")
    watched.live(2)
    watched.answers(13, 22)
    watched.session.expect(WATCHING)
    watched.end()


def test_the_target_of_scons_with_several_jobs(work: Workspace) -> None:
    with watched_program(work, command=[*work.scons_command, "-j2", "hotpatch-watch"]) as watched:
        assert watched.goes_live("unit.h", "SCALE 1", "SCALE 2", 1, 22, 44) == 1
        assert watched.interrupted() in (0, 2), watched.session.transcript


def test_on_a_terminal_with_timings(work: Workspace) -> None:
    with watched_program(work, "--timings", tty=True) as watched:
        watched.save("one.c", "11", "12")
        watched.session.expect(r"live, generation 1")
        watched.session.expect(r"src/one\.o was compiled together with its includes: this session has seen no plain command")
        watched.session.expect(r"timings \(ms\): .*compile [\d.]+.* ms in all")
        assert watched.answers(12, 22) == 1
        assert watched.interrupted() == 0, watched.session.transcript


def test_it_is_watched_alone(work: Workspace) -> None:
    done = work.scons("hotpatch-watch", "build/prog", code=2)
    assert "cannot be asked for together with other targets" in done.text
