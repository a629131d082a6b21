"""`hotpatch watch` with the includes of a unit compiled once: an edit goes live before the build compiles it, and if the build
makes something else of it, that is what stays.

Each save ends with the session's timings: then the build has compiled, and was compared.
"""
from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hotreload_tool.watch.saves import Saves
from livetools import REPLY_SECONDS, Workspace, clean_environment, runtime_directory
from watching import LIVE, MAIN, UNIT_H, Watched, watched_program

SCONSTRUCT = """\
DefaultEnvironment(tools=[])
env = Environment(tools=['gcc', 'g++', 'gnulink', 'ar', 'hotreload'], CCFLAGS=['-O1', '-g'], HOTRELOAD_ARENA='16M',
                  CXX='{compiler}')
env.Program('build/prog', ['src/main.c', 'src/unit.cpp'])
"""
UNIT = """\
#include "two.h"
#include "defies.h"
struct shape { char a; long b; };
extern "C" int one(void) { return 11; }
extern "C" int two(void) { return twice(); }
extern "C" int kept(void) { static int n; return ++n; }
"""
# A pragma in a macro, which gcc does not keep in a compiled header; nothing that looks at the text finds it.
DEFIES = '#define LEAVES _Pragma("pack(1)")\nLEAVES\n'
COMPILE = r"^(g|clang)\+\+ .*unit\.cpp$"
DONE = r"timings \(ms\): .* ms in all\n"
DIFFERS = "not what the build makes"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A project that is built, by compiler."""
    @functools.cache
    def build(compiler: str) -> Path:
        path = tmp_path_factory.mktemp("ahead") / "project"
        (path / "src").mkdir(parents=True)
        for name, text in {"SConstruct": SCONSTRUCT.format(compiler=compiler), "src/main.c": MAIN, "src/unit.h": UNIT_H,
                           "src/unit.cpp": UNIT, "src/two.h": "#pragma once\ninline int twice() { return 22; }\n",
                           "src/defies.h": DEFIES}.items():
            (path / name).write_text(text)
        Workspace(path).scons()
        return path
    return build


@pytest.fixture
def watched(request: pytest.FixtureRequest, built: Callable[[str], Path], tmp_path: Path) -> Iterator[Watched]:
    """A watched program whose unit of C++ has a prefix, however little there is to gain. Parameter: the compiler."""
    path = tmp_path / "project"
    shutil.copytree(built(getattr(request, "param", "g++")), path, symlinks=True)
    with runtime_directory() as agents, \
            watched_program(Workspace(path, clean_environment(HOTRELOAD_RUNTIME_DIR=str(agents))),
                            "--timings", "HOTPATCH_PREFIX=always") as made:
        yield made


@contextmanager
def awaiting_prefix(watched: Watched) -> Iterator[None]:
    """What is done within is followed by a prefix that is made, and shown to be right."""
    (folder,) = (watched.path / ".hotreload/prefixes").glob("*/proven")
    saves = Saves()
    saves.follow(str(folder))
    yield
    assert saves.wait(REPLY_SECONDS), watched.session.transcript
    saves.close()


def go_behind(watched: Watched, name: str, old: str, new: str, generation: int, why: str) -> None:
    """An edit that the build compiles before it goes live."""
    watched.save(name, old, new)
    watched.session.expect(COMPILE, reject=LIVE)
    watched.live(generation)
    watched.session.expect(f"unit.o was compiled together with its includes: .*{why}")
    watched.session.expect(DONE)


def go_ahead(watched: Watched, old: str, new: str, generation: int) -> None:
    """An edit that is live before the build compiles it, and is what that makes of it."""
    watched.save("unit.cpp", old, new)
    watched.live(generation, reject=COMPILE)
    watched.session.expect(COMPILE)
    watched.session.expect(DONE, reject=f"{DIFFERS}|{LIVE}")


def first_ahead(watched: Watched) -> None:
    """Two saves: behind the first one the prefix is made, the second one goes live with it."""
    with awaiting_prefix(watched):
        go_behind(watched, "unit.cpp", "return 11", "return 12", 1, "no plain command")
    go_ahead(watched, "return 12", "return 13", 2)
    watched.answers(13, 22)


@pytest.mark.parametrize("watched", [name for name in ("g++", "clang++") if shutil.which(name)], indirect=True)
def test_an_edit_goes_live_before_the_build_compiles_it(watched: Watched) -> None:
    first_ahead(watched)
    with awaiting_prefix(watched):                        # the header is one of those compiled before: the build comes first
        go_behind(watched, "two.h", "22", "23", 3, "headers was saved")
    watched.answers(13, 23)
    go_ahead(watched, "return 13", "return 14 + 0 * __LINE__ + 0 * __COUNTER__", 4)
    watched.answers(14, 23)
    watched.end()
    assert not os.listdir(watched.path / ".hotreload/prefixes")


def test_what_went_ahead_and_differs_is_corrected(watched: Watched) -> None:
    first_ahead(watched)
    watched.save("unit.cpp", "return 13", "return 1000 + (int)sizeof(struct shape)")
    watched.live(3, reject=COMPILE)
    watched.session.expect(rf"{DIFFERS} \(function one.*goes live now; from now on it is compiled as a whole")
    watched.live(4)
    watched.session.expect(DONE)
    watched.answers(1009, 22)                             # packed, as the build has it; 1016 without the pragma
    go_behind(watched, "unit.cpp", "return 1000", "return 2000", 5, "function one")
    watched.answers(2009, 22)
    watched.end()


def test_a_mistake_with_a_prefix_is_said_by_the_compiler(watched: Watched) -> None:
    first_ahead(watched)
    watched.save("unit.cpp", "return twice", "retrun twice")
    watched.session.expect(r"not compiled: src/unit\.o; nothing was patched", reject="live,")
    assert "error:" in watched.session.transcript
    watched.save("unit.cpp", "retrun twice", "return 5 + twice")
    watched.live(3)
    watched.session.expect(DONE)
    watched.answers(13, 27)
    watched.end()


def test_a_unit_that_comes_to_use_what_a_prefix_would_change(watched: Watched) -> None:
    first_ahead(watched)
    go_behind(watched, "unit.cpp", "return 13", "return 14 + __INCLUDE_LEVEL__", 3, "it uses __INCLUDE_LEVEL__")
    watched.answers(14, 22)
    watched.end()
