"""From a save to the new function running, beside the compiler alone.

usage: python benchmarks/save_to_live.py [--objects 100,1000] [--rounds N] [--folder DIRECTORY] [--options 'OPT=-O1']

A project of `generate.py` runs and is watched. A round saves a new value into one unit; the program itself says at what
time it first got that value. Then the compiler's command of that unit runs alone, twice. Overhead is the round's time less
that of the command that follows it; the two runs of the command against each other show the noise.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "live"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import results
from generate import Shape, write

from livetools import Program, clean_environment, runtime_directory

_WANTED = {100: 25.0, 1000: 40.0, 10_000: 40.0}      # ms: what was promised
_SECONDS = 3600.0                                    # bound on a build
_FLAME = results.REPO / "docs" / "watch-flame.svg"


@dataclass
class Round:
    """Milliseconds."""
    live: float
    bare: float
    again: float


@dataclass
class Measured:
    objects: int
    unit: str
    rounds: list[Round] = field(default_factory=list)

    def overheads(self) -> list[float]:
        return [r.live - r.bare for r in self.rounds]

    def noise(self) -> list[float]:
        return [r.again - r.bare for r in self.rounds]

    def row(self) -> list[str | float]:
        def median(values: list[float]) -> float:
            return round(statistics.median(values), 1)

        low, _, high = statistics.quantiles(self.overheads(), n=4)
        return [f"{self.objects:,}", self.unit, median([r.live for r in self.rounds]), median([r.bare for r in self.rounds]),
                median(self.overheads()), f"{low:.1f} … {high:.1f}", median(self.noise())]


class Bench:
    """One project, with its program and its session."""

    def __init__(self, root: Path, shape: Shape, options: list[str], trace: Path) -> None:
        self.root, self.shape, self.options, self.trace = root, shape, options, trace
        self.scons = [sys.executable, "-m", "SCons", "-Q", f"-j{os.cpu_count()}", *options]

    def build(self) -> None:
        if not (self.root / "SConstruct").exists():
            write(self.root, self.shape)
        begun = time.monotonic()
        subprocess.run([*self.scons, "-s"], cwd=self.root, env=clean_environment(), check=True, timeout=_SECONDS)
        print(f"{self.shape.objects} objects: built in {time.monotonic() - begun:.0f} s", flush=True)

    @contextmanager
    def running(self) -> Iterator[tuple[Program, Program]]:
        """The program and the session."""
        with runtime_directory() as agents:
            env = clean_environment(HOTRELOAD_RUNTIME_DIR=str(agents), HOTPATCH_TIMINGS=str(self.trace))
            with Program([self.root / "build/app"], cwd=self.root, env=env) as program, \
                    Program([*self.scons, "hotpatch-watch"], cwd=self.root, env=env) as session:
                session.expect(r"^watching .*\n", timeout=_SECONDS)
                yield program, session
                os.kill(session.pid, signal.SIGINT)
                session.wait(_SECONDS)

    def measure(self, unit: int, rounds: int, program: Program, session: Program) -> Iterator[Round]:
        path = self.root / self.shape.path(unit)
        value = int(program.ask(f"value {unit}", rf"value {unit} (-?\d+)\n")[1])
        for _ in range(rounds + 2):                         # two to get warm
            value = (value + 1) % 100_000
            text = re.sub(r"return -?\d+;( +// the value)", rf"return {value};\1", path.read_text())
            program.send(f"until {unit} {value}\n")
            saved = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            path.write_text(text)
            arrived = int(program.expect(rf"until {unit} {value} (\d+)\n", timeout=600)[1])
            session.expect(r"^timings .*\n")
            command = re.findall(r"^g\S+ -o build/\S+ -c .*$", session.transcript, re.MULTILINE)[-1]
            yield Round((arrived - saved) / 1e6, self.alone(shlex.split(command)), self.alone(shlex.split(command)))

    def alone(self, command: list[str]) -> float:
        """Milliseconds of the compiler's command, into another file."""
        at = command.index("-o") + 1
        words = [*command[:at], str(self.root / "build" / ".alone.o"), *command[at + 1:]]
        begun = time.perf_counter()
        subprocess.run(words, cwd=self.root, check=True, timeout=600)
        return 1000 * (time.perf_counter() - begun)


# ---- what came out -----------------------------------------------------------------------------------------------


def shares(trace: Path) -> dict[str, float]:
    """Median milliseconds of each span itself, by its name with those around it."""
    own: dict[str, list[float]] = {}
    for line in trace.read_text().splitlines():
        spans = json.loads(line)["spans"]
        sums: dict[str, float] = {}
        for path, begin, end in spans:
            sums[path] = sums.get(path, 0.0) + end - begin
        for path, whole in sums.items():
            inner = sum(v for p, v in sums.items() if p.rpartition(";")[0] == path)
            own.setdefault(path, []).append(whole - inner)
    return {path: statistics.median(values) for path, values in own.items()}


def flame(found: dict[str, float], title: str) -> str:
    """A flame graph: each step as wide as its share, steps within it above it."""
    def whole(path: str) -> float:
        return sum(ms for p, ms in found.items() if p == path or p.startswith(path + ";"))

    roots = dict.fromkeys(path.split(";")[0] for path in found)
    width, height, total = 1000.0, 26, sum(map(whole, roots))
    depth = max(path.count(";") for path in found) + 1
    colours = ("#f4a261", "#e9c46a", "#f6bd60", "#e76f51")
    boxes: list[str] = []

    def draw(path: str, x: float, level: int) -> None:
        ms = whole(path)
        wide, y = ms / total * width, (depth - level - 1) * height + 30
        name = path.rpartition(";")[2]
        text = f"{name} {ms:.1f}" if wide > 60 else name if wide > 7 * len(name) else ""
        boxes.append(f'<g><title>{path.replace(";", " / ")}: {ms:.1f} ms</title><rect x="{x:.1f}" y="{y}" '
                     f'width="{max(wide - 1, 0.5):.1f}" height="{height - 2}" rx="2" fill="{colours[(level + len(boxes)) % 4]}"/>'
                     f'<text x="{x + 4:.1f}" y="{y + 16}">{text}</text></g>')
        for inner in dict.fromkeys(p for p in found if p.rpartition(";")[0] == path):
            draw(inner, x, level + 1)
            x += whole(inner) / total * width

    at = 0.0
    for root in roots:
        draw(root, at, 0)
        at += whole(root) / total * width
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {depth * height + 36}" '
            f'font-family="sans-serif" font-size="12"><text x="4" y="18">{title}: {total:.1f} ms</text>{"".join(boxes)}</svg>\n')


def result(measured: list[Measured], rounds: int) -> results.Result:
    rows = [m.row() for m in measured]
    targets = [results.Target(f"a save goes live at {m.objects:,} objects ({m.unit} unit), beside the compiler",
                              f"≤ {_WANTED[m.objects]:.0f} ms", f"{statistics.median(m.overheads()):.1f} ms",
                              statistics.median(m.overheads()) <= _WANTED[m.objects])
               for m in measured if m.objects in _WANTED and m.unit == "small"]
    about = ("`hotpatch watch` with a program of benchmarks/generate.py, which itself says when it first got the value that was "
             "saved. **live**: from the save to that moment. **compiler**: the command of that unit alone, run right "
             "afterwards. **overhead**: the difference, round by round; **noise**: the same command once more against itself. "
             "The large unit's includes are compiled once (docs/watch.md), so that its overhead may be less than nothing.")
    columns = ["objects", "unit", "live, ms", "compiler, ms", "overhead, ms", "its quartiles", "noise, ms"]
    return results.Result("save_to_live", "From a save to live code", about,
                          [results.Table(f"Medians of {rounds} rounds.", columns, rows)], targets,
                          pictures=[_FLAME.name], order=10,
                          raw={f"{m.objects} {m.unit}": [vars(r) for r in m.rounds] for m in measured})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", default="100,1000")
    parser.add_argument("--language", choices=("mixed", "c", "c++"), default=Shape.language)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("build-save-to-live"), help="for the projects; kept")
    parser.add_argument("--options", default="", help="for SCons: 'OPT=-O1'")
    args = parser.parse_args()
    measured: list[Measured] = []
    for objects in map(int, args.objects.split(",")):
        shape = Shape(objects=objects, functions=10 * objects, language=args.language)
        root = (args.folder / str(objects)).resolve()
        root.mkdir(parents=True, exist_ok=True)
        bench = Bench(root, shape, shlex.split(args.options), root / "trace.jsonl")
        bench.build()
        bench.trace.unlink(missing_ok=True)
        with bench.running() as (program, session):
            for name, unit in (("small", 0), ("large", shape.units)):
                one = Measured(objects, name)
                measured.append(one)
                one.rounds = list(bench.measure(unit, args.rounds, program, session))[2:]
                print(one.row(), flush=True)
                if name == "small" and len(measured) == 1:
                    title = f"One save, {objects} objects, small unit"
                    _FLAME.write_text(flame(shares(bench.trace), title))
    result(measured, args.rounds).write()


if __name__ == "__main__":
    main()
