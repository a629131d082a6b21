"""What an agent takes from its process: threads, descriptors, memory, wake-ups.

usage: python benchmarks/footprint.py [--seconds N] [--patches N] [--document FILE]

The same small program (tests/runtime/target.c) without the tool, with its agent, and after patches. Memory is from
/proc/PID/smaps: what is resident, and what is the process's own (Private_*). Wake-ups are counted while nothing is asked.
"""
from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO), str(REPO / "tests"), str(REPO / "tests" / "live"), str(REPO / "tests" / "campaign")]

import document  # noqa: E402
import runtimetools  # noqa: E402
from runtimetools import SOURCES, Image, Recipe  # noqa: E402

from hotreload_tool import process  # noqa: E402
from livetools import Program, runtime_directory  # noqa: E402

_COLUMNS = ("program", "threads", "descriptors of the program", "of the agent", "resident KiB", "its own KiB", "mappings",
            "wake-ups a second")


def tasks(pid: int) -> list[Path]:
    return sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name))


def switches(task: Path) -> int:
    lines = (task / "status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def descriptors(pid: int) -> tuple[int, int]:
    """(of the program's table, of the agent's)"""
    counts = {(task / "comm").read_text(): len(os.listdir(task / "fd")) for task in tasks(pid)}
    agent = counts.pop("hotreload\n", 0)
    return next(iter(counts.values())), agent


def wake_ups(pid: int, seconds: float) -> float:
    """A second, of all threads."""
    before = sum(map(switches, tasks(pid)))
    threading.Event().wait(seconds)
    return (sum(map(switches, tasks(pid))) - before) / seconds


def measure(name: str, program: Program, seconds: float) -> str:
    program.ask("value", r"^value -?\d+\n")
    rate = wake_ups(program.pid, seconds)
    memory = runtimetools.smaps(program.pid)
    own = sum(counts["Private_Clean"] + counts["Private_Dirty"] for _, counts in memory)
    cells = (name, len(tasks(program.pid)), *descriptors(program.pid), sum(counts["Rss"] for _, counts in memory), own,
             len(memory), f"{rate:g}")
    return "| " + " | ".join(map(str, cells)) + " |"


def patch(program: Program, image: Image, folder: Path, patches: int) -> None:
    previous = None
    for n in range(patches):
        recipe = Recipe(image, f"int value_new(void) {{ return {n}; }}", {"value": "value_new"}, previous=previous)
        previous = runtimetools.make_payload(folder, recipe)
        process.apply(program.pid, [previous.path], when="quiescent", timeout=60)


def rows(folder: Path, seconds: float, patches: int) -> Iterator[str]:
    plain = folder / "plain"
    runtimetools.run(["gcc", "-O2", "-g", f"-I{SOURCES}", f"-I{REPO / 'runtime'}", "-o", plain, SOURCES / "target.c", "-pthread",
                      "-ldl"])
    image = runtimetools.build(folder, "target", [SOURCES / "target.c"])
    with runtimetools.start(plain) as program:
        yield measure("without the tool", program, seconds)
    with runtimetools.start(image) as program:
        yield measure("with its agent", program, seconds)
        process.status(program.pid)
        yield measure("after `hotpatch status`", program, seconds)
    for n in (1, patches):
        with runtimetools.start(image) as program:
            patch(program, image, folder, n)
            yield measure("after a patch" if n == 1 else f"after {n} patches", program, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="that nothing is asked, for the wake-ups")
    parser.add_argument("--patches", type=int, default=50)
    parser.add_argument("--document", type=Path, help="put the table into this file")
    args = parser.parse_args()
    lines = [f"Linux {platform.release()}, {args.seconds:g} s for each row's wake-ups", "",
             "| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    print("\n".join(lines), flush=True)
    with runtime_directory() as sockets, tempfile.TemporaryDirectory() as folder:
        os.environ["HOTRELOAD_RUNTIME_DIR"] = str(sockets)
        for row in rows(Path(folder), args.seconds, args.patches):
            print(row, flush=True)
            lines.append(row)
    if args.document:
        document.replace(args.document, "footprint", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
