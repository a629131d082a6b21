"""Two commits of the tool, measured in turn in one run: is one slower than the other?

usage: python benchmarks/regression.py BASE [OTHER] [--objects N] [--rounds N] [--limit 1.10] [--measures …] [--json FILE]

OTHER is the work tree as it is, unless a commit is named. Each builds and patches a project of its own, of `generate.py`. A
round runs every measure once for each commit, in an order drawn anew: a build from nothing and `scons hotpatch` (CPU time with
all children), and in a watching session the time from a save until the program runs it. What counts are ratios, OTHER of BASE;
a measure is a regression if even the low end of its 95 % interval is above the limit. Exit code: 1 if there is one.

What the code that the tool makes costs while it runs is compared by `running_cost.py --beside BASE=CHECKOUT`.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO), str(REPO / "benchmarks"), str(REPO / "tests" / "live")]

from cold_patch import cpu_seconds  # noqa: E402
from generate import Shape, write  # noqa: E402

from livetools import Program, clean_environment, compile_modules, runtime_directory  # noqa: E402

_SECONDS = 3600.0
_DRAWS = 2000
_NAMES = {"build": "build from nothing, CPU", "patch": "`scons hotpatch`, CPU", "live": "watch: save to live"}
Measured = dict[str, list[float]]


# ---- what was measured -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """OTHER of BASE, with the 95 % interval of the ratio."""
    what: str
    ratio: float
    low: float
    high: float
    worse: bool

    def line(self) -> str:
        what = _NAMES.get(self.what, self.what)
        return f"{what:<26} {self.ratio:.3f}  ({self.low:.3f} to {self.high:.3f})  {'REGRESSION' if self.worse else 'ok'}"


def judge(base: Measured, other: Measured, limit: float) -> list[Verdict]:
    """The ratios of medians. Pairs of one round are drawn together: what slowed down a round slowed down both."""
    found = []
    for what, values in base.items():
        ratio = statistics.median(other[what]) / statistics.median(values)
        low, high = _interval(values, other[what])
        found.append(Verdict(what, ratio, low, high, low > limit))
    return found


def _interval(base: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    draw = random.Random(1)
    ratios = []
    for _ in range(_DRAWS):
        rounds = draw.choices(range(len(base)), k=len(base))
        ratios.append(statistics.median(other[i] for i in rounds) / statistics.median(base[i] for i in rounds))
    ratios.sort()
    return ratios[_DRAWS // 40], ratios[-_DRAWS // 40]


# ---- measuring ---------------------------------------------------------------------------------------------------


class Side:
    """One commit's tool, with a project, its running program and its watching session."""

    def __init__(self, name: str, checkout: Path, folder: Path, shape: Shape) -> None:
        self.name, self.root, self.shape = name, folder / name, shape
        self.measured: Measured = {}
        self._tool = f"TOOL={checkout / 'site_scons' / 'site_tools'}"
        self._env = clean_environment(PYTHONPATH=str(checkout))
        compile_modules(checkout)
        for tree in ("cold", "watched"):
            write(self.root / tree, shape)
        self._value = 1000

    def take(self, what: str, watched: Program | None) -> float:
        """One measure. `watched`: the program of `self.watched()`, where that is asked for."""
        if watched is not None and what == "live":
            return self.live(watched)
        return self.build() if what == "build" else self.patch()

    def scons(self, tree: str, *words: str) -> list[str]:
        return [sys.executable, "-m", "SCons", "-Q", "-s", self._tool, *words]

    def build(self) -> float:
        root = self.root / "cold"
        for left in ("build", ".hotreload", ".sconsign.dblite"):
            path = root / left
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return cpu_seconds(self.scons("cold", f"-j{os.cpu_count()}"), root, self._env)

    def patch(self) -> float:
        """Of a program that runs and must have taken the edit afterwards."""
        root = self.root / "cold"
        with runtime_directory() as agents:
            env = {**self._env, "HOTRELOAD_RUNTIME_DIR": str(agents)}
            with Program([root / "build/app"], cwd=root, env=env) as program:
                value = self.save(root)
                used = cpu_seconds(self.scons("cold", "hotpatch"), root, env)
                program.ask("value 0", rf"value 0 {value}\n")
        return used

    def save(self, root: Path) -> int:
        self._value += 1
        path = root / self.shape.path(0)
        path.write_text(re.sub(r"return -?\d+;( +// the value)", rf"return {self._value};\1", path.read_text()))
        return self._value

    @contextlib.contextmanager
    def watched(self) -> Iterator[Program]:
        """The watched program, warm."""
        root = self.root / "watched"
        subprocess.run(self.scons("watched", f"-j{os.cpu_count()}"), cwd=root, env=self._env, check=True, timeout=_SECONDS)
        with runtime_directory() as agents:
            env = {**self._env, "HOTRELOAD_RUNTIME_DIR": str(agents)}
            with Program([root / "build/app"], cwd=root, env=env) as program, \
                    Program([w for w in self.scons("watched", "hotpatch-watch") if w != "-s"], cwd=root, env=env) as session:
                session.expect(r"^watching .*\n", timeout=_SECONDS)
                self.live(program)
                yield program
                os.kill(session.pid, signal.SIGINT)
                session.wait(_SECONDS)

    def live(self, program: Program) -> float:
        """Milliseconds from a save until the program gets the new value."""
        program.send(f"until 0 {self._value + 1}\n")
        saved = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        value = self.save(self.root / "watched")
        return (int(program.expect(rf"until 0 {value} (\d+)\n", timeout=_SECONDS)[1]) - saved) / 1e6


@contextlib.contextmanager
def checkout(commit: str | None, folder: Path) -> Iterator[Path]:
    """The files of a commit; without one those that are here."""
    if commit is None:
        yield REPO
        return
    git = ["git", "-C", str(REPO), "worktree"]
    subprocess.run([*git, "add", "-q", "--detach", str(folder), commit], check=True, timeout=_SECONDS)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=False, timeout=_SECONDS)


def measure(sides: Sequence[Side], rounds: int, wanted: Sequence[str]) -> None:
    with contextlib.ExitStack() as stack:
        if "build" not in wanted:
            for side in sides:
                side.build()
        programs = {side.name: stack.enter_context(side.watched()) for side in sides if "live" in wanted}
        for number in range(rounds + 1):
            for side in random.sample(sides, len(sides)):
                for what in wanted:
                    value = side.take(what, programs.get(side.name))
                    if number:                                         # the first to get warm
                        side.measured.setdefault(what, []).append(value)


def compare(base: str, other: str | None, shape: Shape, rounds: int, wanted: Sequence[str]) -> Mapping[str, Measured]:
    """What both measured, by the name of the side."""
    with tempfile.TemporaryDirectory(prefix="hr-regression-") as place, checkout(base, Path(place, "base-tree")) as first, \
            checkout(other, Path(place, "other-tree")) as second:
        sides = [Side("base", first, Path(place), shape), Side("other", second, Path(place), shape)]
        measure(sides, rounds, wanted)
        return {side.name: side.measured for side in sides}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a commit")
    parser.add_argument("other", nargs="?", help="another one; the work tree if there is none")
    parser.add_argument("--objects", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=float, default=1.10, help="how much more is none (default: 1.10)")
    parser.add_argument("--measures", nargs="+", choices=tuple(_NAMES), default=list(_NAMES))
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    args = parser.parse_args(argv)
    shape = Shape(objects=args.objects, functions=10 * args.objects)
    measured = compare(args.base, args.other, shape, args.rounds, args.measures)
    if args.json:
        args.json.write_text(json.dumps(measured, indent=1) + "\n")
    verdicts = judge(measured["base"], measured["other"], args.limit)
    print(f"{args.other or 'the work tree'} of {args.base}, {args.rounds} rounds, limit {args.limit}:")
    print("\n".join(v.line() for v in verdicts))
    return int(any(v.worse for v in verdicts))


if __name__ == "__main__":
    sys.exit(main())
