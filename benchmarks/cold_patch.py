"""`scons hotpatch` from nothing, beside a plain `scons` of the same edit, which links the program again; and full builds.

usage: python benchmarks/cold_patch.py [--objects 100] [--rounds N] [--builds N] [--folder DIRECTORY] [--language mixed|c|c++]

The project of `generate.py`, once with the tool and once without. A round saves the same edit in both trees and runs, in
changing order, `scons hotpatch` while the program runs, `scons` without the tool, twice, and `scons` with it. What is compared
is CPU time of the process and all it starts. Full builds run in turn too, with the runtime there already as after the first
build, and once without it.
"""
from __future__ import annotations

import argparse
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "live"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import results
from generate import Shape, write

from livetools import Program, clean_environment, compile_modules, runtime_directory

_WANTED, _WANTED_BUILD = 1.15, 1.10
_SECONDS = 3600.0
Runs = dict[str, list[float]]


def cpu_seconds(argv: list[str], root: Path, env: dict[str, str]) -> float:
    """User and system time of a command with all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, cwd=root, env=env, check=True, timeout=_SECONDS, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Trees:
    """The same project twice."""

    def __init__(self, folder: Path, shape: Shape, agents: Path) -> None:
        self.shape = shape
        self.roots = {"with": folder / f"{shape.objects}-with", "without": folder / f"{shape.objects}-without"}
        self.env = clean_environment(HOTRELOAD_RUNTIME_DIR=str(agents))
        for root in self.roots.values():
            if not (root / "SConstruct").exists():
                write(root, shape)

    def scons(self, tree: str, *words: str) -> float:
        plain = ["PLAIN=1"] if tree == "without" else []
        return cpu_seconds([sys.executable, "-m", "SCons", "-Q", "-s", *plain, *words], self.roots[tree], self.env)

    def full_build(self, tree: str, first: bool = False) -> float:
        """Of everything; `first`: with the runtime."""
        root = self.roots[tree]
        for left in ("build", "plain", *([".hotreload", ".sconsign.dblite"] if first or tree == "without" else [])):
            path = root / left
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return self.scons(tree, f"-j{os.cpu_count()}")

    def edit(self, unit: int, value: int) -> None:
        for root in self.roots.values():
            path = root / self.shape.path(unit)
            path.write_text(re.sub(r"return -?\d+;( +// the value)", rf"return {value};\1", path.read_text()))

    def round(self, unit: int, value: int, runs: Runs) -> None:
        """`with` gets a plain build of its own behind the patch: the object is there already, so it only links."""
        self.edit(unit, value)
        kinds: dict[str, Callable[[], float]] = {"hotpatch": lambda: self.scons("with", "hotpatch"),
                                                 "plain": lambda: self.scons("without")}
        for kind in random.sample(sorted(kinds), len(kinds)):
            runs.setdefault(kind, []).append(kinds[kind]())
        self.edit(unit, value + 1)
        kinds = {"with the tool": lambda: self.scons("with"), "plain again": lambda: self.scons("without")}
        for kind in random.sample(sorted(kinds), len(kinds)):
            runs.setdefault(kind, []).append(kinds[kind]())


def build_table(builds: Runs) -> tuple[results.Table, results.Target]:
    middle = {kind: statistics.median(values) for kind, values in builds.items()}
    labels = {"plain": "without the tool (`-g`)", "with the tool": "with it", "first": "with it, the very first"}
    rows: list[list[str | float]] = [[text, middle[kind], middle[kind] / middle["plain"]] for kind, text in labels.items()]
    ratio = middle["with the tool"] / middle["plain"]
    wanted = f"≤ {_WANTED_BUILD:.2f}"
    target = results.Target("full build by SCons, of a plain one", wanted, f"{ratio:.2f}", ratio <= _WANTED_BUILD)
    caption = f"Full builds; medians of {len(builds['plain'])}. The very first compiles the runtime."
    return results.Table(caption, ["build", "CPU, s", "of plain"], rows), target


def result(shape: Shape, runs: Runs, builds: Runs) -> results.Result:
    middle = {kind: statistics.median(values) for kind, values in runs.items()}
    ratio = middle["hotpatch"] / middle["plain"]
    labels = {"plain": "`scons` without the tool: compiles and links", "plain again": "the same again (noise)",
              "with the tool": "`scons` with it: compiles, links and files the image",
              "hotpatch": "`scons hotpatch`: compiles and patches the running program"}
    rows: list[list[str | float]] = [[text, middle[kind], middle[kind] / middle["plain"]] for kind, text in labels.items()]
    target = results.Target(f"`scons hotpatch` from nothing at {shape.objects:,} objects, of a plain `scons` of the same edit",
                            f"≤ {_WANTED}", f"{ratio:.2f}", ratio <= _WANTED)
    caption = f"{shape.objects:,} objects; medians of {len(runs['plain'])} rounds."
    table = results.Table(caption, ["run", "CPU, s", "of plain"], rows)
    about = "CPU time, user and system, of one SCons and all it starts, for the same edit of a small unit."
    tables, targets = [table], [target]
    if builds:
        full, wanted = build_table(builds)
        tables.append(full)
        targets.append(wanted)
    return results.Result("cold_patch", "A patch without a session", about, tables, targets, order=15,
                          raw={**runs, **{f"full build, {kind}": values for kind, values in builds.items()}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--language", choices=("mixed", "c", "c++"), default=Shape.language)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--builds", type=int, default=3, help="full builds of each kind")
    parser.add_argument("--folder", type=Path, default=Path("build-cold-patch"), help="for the projects; kept")
    args = parser.parse_args()
    compile_modules()
    shape = Shape(objects=args.objects, functions=10 * args.objects, language=args.language)
    with runtime_directory() as agents:
        trees = Trees(args.folder.resolve(), shape, agents)
        builds: Runs = {}
        for _ in range(args.builds):
            for kind, tree, first in (("plain", "without", False), ("first", "with", True), ("with the tool", "with", False)):
                builds.setdefault(kind, []).append(trees.full_build(tree, first))
        for tree in trees.roots:
            trees.scons(tree, f"-j{os.cpu_count()}")
        runs: Runs = {}
        with Program([trees.roots["with"] / "build/app"], cwd=trees.roots["with"], env=trees.env) as program:
            program.ask("value 0", r"value 0 -?\d+\n")
            for number in range(args.rounds + 1):
                trees.round(0, 1000 + 2 * number, runs)
    for values in runs.values():
        del values[0]                          # to get warm
    print({kind: round(statistics.median(values), 3) for kind, values in runs.items()})
    print({kind: round(statistics.median(values), 2) for kind, values in builds.items()})
    result(shape, runs, builds).write()


if __name__ == "__main__":
    main()
