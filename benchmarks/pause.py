"""How long threads stand still for a patch of one function, by number of threads and consistency; a table on standard output.

usage: python benchmarks/pause.py [--rounds N] [--threads N …]

Each round applies a patch and reverts it. Threads either sleep in a system call or spin. `pause` is what the agent reports:
from the first signal until all threads may run again. `whole` is the round trip as the tool sees it.
"""
from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO), str(REPO / "tests"), str(REPO / "tests" / "live")]

import runtimetools  # noqa: E402

from hotreload_tool import process  # noqa: E402
from livetools import runtime_directory  # noqa: E402

_KINDS = {"asleep": "masked", "spinning": "worker"}     # what the table says -> what tests/runtime/threads.c calls it


def measure(image: runtimetools.Image, payload: runtimetools.Payload, kind: str, threads: int, when: str,
            rounds: int) -> tuple[list[float], list[float], int]:
    """Pauses and round trips in microseconds, and how many threads each round stopped."""
    pauses, whole, stopped = [], [], 0
    with runtimetools.start(image) as program:
        if threads > 1:
            program.ask(f"start {_KINDS[kind]} {threads - 1}", r"^started", timeout=300)
        for _ in range(rounds):
            begun = time.perf_counter()
            result = process.apply(program.pid, [payload.path], when=when, timeout=60)
            whole.append((time.perf_counter() - begun) * 1e6)
            pauses.append(float(result.pause_us))
            stopped = result.threads_stopped
            process.revert(program.pid, image.build_id.hex(), 0, when=when, timeout=60)
    return pauses, whole, stopped


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 8, 64, 256])
    args = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, Linux {platform.release()}, {args.rounds} rounds; microseconds")
    print(f"{'threads':>8} {'doing':>9} {'when':>10} {'stopped':>8}"
          + "".join(f"{head:>11}" for head in ("pause p50", "pause p99", "whole p50", "whole p99")))
    with runtime_directory() as sockets, tempfile.TemporaryDirectory() as folder:
        os.environ["HOTRELOAD_RUNTIME_DIR"] = str(sockets)
        image = runtimetools.build(Path(folder), "threads", [runtimetools.SOURCES / "threads.c"])
        payload = runtimetools.make_payload(Path(folder), runtimetools.Recipe(
            image, "int held_new(int fd) { return fd; }", {"held": "held_new"}))
        for threads in args.threads:
            for kind in _KINDS:
                for when in ("now", "quiescent"):
                    pauses, whole, stopped = measure(image, payload, kind, threads, when, args.rounds)
                    print(f"{threads:8} {kind:>9} {when:>10} {stopped:8} {statistics.median(pauses):10.0f} "
                          f"{percentile(pauses, 0.99):10.0f} {statistics.median(whole):10.0f} {percentile(whole, 0.99):10.0f}",
                          flush=True)


if __name__ == "__main__":
    main()
