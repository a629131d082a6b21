"""The programs of benchmarks/running_cost/programs.json: fetched, built in several ways, given a patch.

Every source is compiled by a command of its own at -O2 and all objects are linked by one more, so that a plain build and
one with the tool differ in nothing but the words before the compiler.
"""
from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
DATA = Path(__file__).resolve().parent / "running_cost"
sys.path[:0] = [str(REPO), str(REPO / "tests" / "live"), str(REPO / "tests" / "real")]

import aptsource  # noqa: E402

from livetools import HOTPATCH, clean_environment  # noqa: E402

SECONDS = 1800.0
PLAIN, DEBUG = "plain", "debug"           # -O2, and -O2 -g; any other build is a kind of stub
# One more instruction that does nothing (endbr64), at the start of every function that can be called from elsewhere.
_TOUCH = "-fcf-protection=branch"
CHECKOUTS: dict[str, str] = {}            # label -> directory: other versions of the tool, to be compared in one run


class Failed(Exception):
    """A command of a build failed. The message has its words and what it said."""


@dataclass(frozen=True)
class Program:
    """An entry of programs.json. Commands are split as a shell does, but run by none; they know `{tree}`, `{data}`, `{image}`,
    `{input}`, `{port}`. A program with `server` is measured while the command `run` asks it."""
    name: str
    about: str
    package: str                       # a source package of the distribution
    sources: list[str]                 # patterns
    flags: str
    libs: str
    run: str
    without: list[str] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)   # what a patch must leave: code that runs before main() cannot change
    prepare: list[str] = field(default_factory=list)     # with the plain compiler, once
    needs: list[str] = field(default_factory=list)       # commands
    input: str = ""                    # patterns of text files, repeated up to `input_bytes`
    input_bytes: int = 0
    server: str = ""


def programs() -> dict[str, Program]:
    return {name: Program(name, **entry) for name, entry in json.loads((DATA / "programs.json").read_text()).items()}


@dataclass(frozen=True)
class Build:
    """What one way of building made. Seconds are of CPU time, user and system, of all processes of the build."""
    image: Path
    seconds: float
    again: float                       # of a further full build, when the runtime's objects are there already


class Tree:
    """One program in `folder`. Raises aptsource.Unavailable, Failed, subprocess.SubprocessError."""

    def __init__(self, program: Program, folder: Path, jobs: int) -> None:
        self.program, self.folder, self.jobs = program, folder, jobs
        self.base = folder / "source"
        self.input = folder / "input"
        missing = [command for command in program.needs if not shutil.which(command)]
        if missing:
            raise aptsource.Unavailable(f"{program.name} needs {', '.join(missing)}")
        if not self.base.is_dir():
            self._unpack()
        if program.input and not self.input.exists():
            self._make_input()

    def _unpack(self) -> None:
        scratch = self.folder / "unpacking"
        shutil.rmtree(scratch, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        (description,) = aptsource.package(self.program.package).glob("*.dsc")
        _call(["dpkg-source", "--no-check", "--skip-patches", "-x", str(description), str(scratch)], self.folder)
        for command in self.program.prepare:
            _call(self.words(command, scratch), scratch)
        scratch.rename(self.base)

    def _make_input(self) -> None:
        text = b"".join(path.read_bytes() for pattern in self.program.input.split() for path in sorted(self.base.glob(pattern)))
        self.input.write_bytes((text * (self.program.input_bytes // len(text) + 1))[:self.program.input_bytes])

    def words(self, text: str, tree: Path, **places: object) -> list[str]:
        known = {"tree": tree, "data": DATA, "input": self.input, **places}
        return [re.sub(r"\{(\w+)\}", lambda m: str(known.get(m[1], m[0])), word) for word in shlex.split(text)]

    def tree(self, way: str) -> Path:
        return self.folder / f"{way:_<8}"     # paths of one length, in case they end up in the program

    def build(self, way: str) -> Build:
        """From nothing, and the link twice; what is there from an earlier run is used as it is."""
        tree = self.tree(way)
        kept = tree / "build.json"
        if not kept.exists():
            shutil.rmtree(tree, ignore_errors=True)
            shutil.copytree(self.base, tree, symlinks=True)
            objects, compiled = self._compile_all(way, tree)
            links = [self._link(way, tree, objects) for _ in range(2)]
            shutil.copy2(tree / "image", tree / "base")
            kept.write_text(json.dumps([compiled + seconds for seconds in links]))
        return Build(tree / "base", *json.loads(kept.read_text()))

    def patch(self, way: str) -> Path:
        """A bundle that changes the functions of the program: each begins with one more instruction."""
        tree = self.tree(way)
        made = tree / "all.hotpatch"
        if not made.exists():
            self._link(way, tree, self._compile_all(way, tree, [_TOUCH])[0])
            words = [*HOTPATCH, "bundle", "--base", str(tree / "base"), str(tree / "image"), "-o", str(made)]
            _call(words, tree, _environment(way, tree))
        return made

    def _compile_all(self, way: str, tree: Path, more: Sequence[str] = ()) -> tuple[list[str], float]:
        """The objects, and the seconds that it took."""
        before = _children()
        sources = self._sources(tree)
        objects = [f"{re.sub(r'[^A-Za-z0-9]+', '-', source)}.o" for source in sources]
        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(lambda source, made: self._compile(way, tree, source, made, more), sources, objects))
        return objects, _children() - before

    def _link(self, way: str, tree: Path, objects: Sequence[str]) -> float:
        before = _children()
        cxx = any(name.endswith(("-cc.o", "-cpp.o")) for name in objects)
        _call([*_compiler(way, cxx), *objects, "-o", "image", *shlex.split(self.program.libs)], tree, _environment(way, tree))
        return _children() - before

    def _compile(self, way: str, tree: Path, source: str, made: str, more: Sequence[str]) -> None:
        more = () if source in self.program.untouched else more
        words = [*_compiler(way, not source.endswith((".c", ".S"))), "-O2", *(["-g"] if way == DEBUG else []), "-w",
                 *shlex.split(self.program.flags), *more, "-c", source, "-o", made]
        _call(words, tree, _environment(way, tree))

    def _sources(self, tree: Path) -> list[str]:
        found = []
        for pattern in self.program.sources:
            if pattern.startswith("{data}"):
                copy = tree / f"driver-{Path(pattern).name}"
                shutil.copy2(DATA / Path(pattern).name, copy)
                found.append(copy.name)
            else:
                found += sorted(str(path.relative_to(tree)) for path in tree.glob(pattern))
        return [source for source in found if source not in self.program.without]


def kind_of(way: str) -> str:
    """The kind of stubs that a way of building gives: `plt@LABEL` is `plt`, by the tool of another checkout."""
    return way.partition("@")[0]


def _compiler(way: str, cxx: bool) -> list[str]:
    compiler = "g++" if cxx else "gcc"
    return [compiler] if way in (PLAIN, DEBUG) else [*HOTPATCH, "cc", "--", compiler]


def _environment(way: str, tree: Path) -> dict[str, str]:
    if way in (PLAIN, DEBUG):
        return clean_environment(SOURCE_DATE_EPOCH="1700000000")
    env = clean_environment(SOURCE_DATE_EPOCH="1700000000", HOTRELOAD_STUBS=kind_of(way), HOTRELOAD_TOP=str(tree),
                            HOTRELOAD_DIR=str(tree / ".hotreload"), PYTHONPATH=CHECKOUTS.get(way.partition("@")[2], str(REPO)))
    env.pop("PYTHONDONTWRITEBYTECODE")     # as installed: no start of the tool compiles its own modules
    return env


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _call(words: Sequence[str], cwd: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(list(words), cwd=cwd, env=env or dict(os.environ, LC_ALL="C"), stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace", timeout=SECONDS, check=False)
    if done.returncode:
        raise Failed(f"{shlex.join(words)} (in {cwd}) exited with {done.returncode}:\n{done.stdout[-3000:]}")
