"""How long threads stand still for a patch, by number of threads, of changed functions, and consistency; a table in Markdown.

usage: python benchmarks/pause.py [--rounds N] [--threads N …] [--document FILE]

Each round applies a patch and reverts it. All threads but the main one either sleep in a system call or call the functions
that change. One of them watches the clock and calls one of those functions:

- `pause`: what the agent reports, from the first signal until all threads may run again; 0 where no thread is stopped.
- `gates`: for how long calls of the functions that change would have waited, with `quiescent`.
- `gap`: the longest time between two looks at the clock during a round, less than which nobody can notice.
- `idle gap`: the same over as long a time without a patch, in turn with the others: what the machine itself does.

Microseconds, median and 99th percentile.
"""
from __future__ import annotations

import argparse
import itertools
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO), *(str(REPO / "tests" / part) for part in (".", "live", "campaign"))]

import document  # noqa: E402
import runtimetools  # noqa: E402

from hotreload_tool import process  # noqa: E402
from livetools import Program, runtime_directory  # noqa: E402

MODES = ("now", "quiescent", "safepoint")
FUNCTIONS = (1, 100)
KINDS = ("asleep", "spinning")
_COLUMNS = ("threads", "doing", "functions", "when", "stopped", "asleep", "pause", "gates", "gap", "idle gap", "round trip")


@dataclass
class Row:
    threads: int
    kind: str
    functions: int
    when: str
    stopped: int = 0
    asleep: int = 0
    pause: list[float] = field(default_factory=list)        # µs, as the lists below
    gates: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        figures = [f"{percentile(v, 0.5):.0f} / {percentile(v, 0.99):.0f}"
                   for v in (self.pause, self.gates, self.gap, self.idle, self.whole)]
        return "| " + " | ".join([str(self.threads), self.kind, str(self.functions), self.when, str(self.stopped),
                                  str(self.asleep), *figures]) + " |"


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def payload_of(folder: Path, image: runtimetools.Image, functions: int) -> runtimetools.Payload:
    names = [f"f{i:02}" for i in range(functions)]
    source = "\n".join(f"int {name}_new(void) {{ return 1; }}" for name in names)
    return runtimetools.make_payload(folder, runtimetools.Recipe(image, source, {name: f"{name}_new" for name in names}))


def measure(program: Program, image: runtimetools.Image, payload: runtimetools.Payload, row: Row, rounds: int) -> Row:
    """`rounds` times a patch and its revert, and as long without, in turn."""
    for _ in range(rounds):
        longest_gap(program)
        begun = time.perf_counter()
        result = process.apply(program.pid, [payload.path], when=row.when, timeout=60)
        took = time.perf_counter() - begun
        row.gap.append(longest_gap(program))
        process.revert(program.pid, image.build_id.hex(), 0, when=row.when, timeout=60)
        longest_gap(program)
        idle_for(took)
        row.idle.append(longest_gap(program))
        row.stopped, row.asleep = result.threads_stopped, result.threads_asleep
        row.pause.append(float(result.pause_us))
        row.gates.append(float(result.document["gates_us"]))
        row.whole.append(took * 1e6)
    return row


def idle_for(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        os.sched_yield()


def longest_gap(program: Program) -> float:
    """Microseconds, since it was asked for the last time."""
    return int(program.ask("gap", r"^gap (\d+)\n", timeout=300)[1]) / 1000


def rows(folder: Path, threads: Sequence[int], rounds: int) -> Iterator[Row]:
    image = runtimetools.build(folder, "pause", [REPO / "benchmarks" / "pause.c"])
    payloads = {n: payload_of(folder, image, n) for n in FUNCTIONS}
    for n, kind, functions in itertools.product(threads, KINDS, FUNCTIONS):
        with runtimetools.start(image) as program:
            program.ask("watching", r"^started", timeout=300)
            program.ask(f"{kind} {n - 1}", r"^started", timeout=300)
            for when in MODES:
                yield measure(program, image, payloads[functions], Row(n, kind, functions, when), rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 8, 64, 256, 1000])
    parser.add_argument("--document", type=Path, help="put the table into this file")
    args = parser.parse_args()
    head = f"{os.cpu_count()} CPUs, Linux {platform.release()}, {args.rounds} rounds each; µs, median / 99th percentile"
    lines = [head, "", "| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    print("\n".join(lines), flush=True)
    with runtime_directory() as sockets, tempfile.TemporaryDirectory() as folder:
        os.environ["HOTRELOAD_RUNTIME_DIR"] = str(sockets)
        for row in rows(Path(folder), args.threads, args.rounds):
            print(row, flush=True)
            lines.append(str(row))
    if args.document:
        document.replace(args.document, "pause", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
