"""Where the time goes: named spans of the way from a save to live code, for `--timings`.

Off, a span costs next to nothing. A span within another one counts for itself: the outer one's share is what is left.
The names are those of docs/architecture.md: compile, instrument, maps, difference, plan, link, bundle, apply.
"""
from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Timings:
    """Seconds by span, in the order in which they first ended; and every single one, for drawing."""
    begun: float = field(default_factory=lambda: time.perf_counter())
    seconds: dict[str, float] = field(default_factory=dict)
    spans: list[tuple[str, float, float]] = field(default_factory=list)     # ("outer;inner", begin, end), of perf_counter

    def text(self) -> str:
        """One line: each span's milliseconds, then what no span covers, then all."""
        whole = time.perf_counter() - self.begun
        rest = whole - sum(self.seconds.values())
        shares = [*self.seconds.items(), *([("other", rest)] if rest > 0 else [])]
        return ", ".join(f"{name} {1000 * s:.1f}" for name, s in shares) + f"; {1000 * whole:.1f} ms in all"

    def document(self) -> dict[str, Any]:
        """Every span, in ms since the begin: name with those around it ("scons;compile"), begin, end."""
        return {"spans": [(path, 1000 * (begin - self.begun), 1000 * (end - self.begun)) for path, begin, end in self.spans]}


@dataclass
class _Open:
    """A span that has not ended, and the seconds of those that ended within it."""
    name: str
    within: float = 0.0


_current: list[Timings] = []
_open = threading.local()


def start() -> Timings:
    """Collect from now on, from nothing; returns what is collected into."""
    _current[:] = [Timings()]
    return _current[0]


def begin() -> None:
    """`start`, unless it did already."""
    if not _current:
        start()


def chosen() -> str:
    """HOTPATCH_TIMINGS of the environment: "" for none, a file's name in *.jsonl, or anything else."""
    return os.environ.get("HOTPATCH_TIMINGS", "")


def report(chosen: str) -> str:
    """What HOTPATCH_TIMINGS=`chosen` asks for, of what was collected since `start`: a line for people; with a name in *.jsonl a
    line of that file too."""
    timings = _current[0]
    if chosen.endswith(".jsonl"):
        with open(chosen, "a") as file:
            file.write(json.dumps(timings.document()) + "\n")
    return f"timings (ms): {timings.text()}"


def stop() -> None:
    _current.clear()


@contextlib.contextmanager
def span(name: str) -> Iterator[None]:
    """The time of the block, less that of spans within it, counts for `name`."""
    if not _current:
        yield
        return
    timings = _current[0]
    stack: list[_Open] = _open.__dict__.setdefault("stack", [])
    stack.append(_Open(name))
    begin = time.perf_counter()
    try:
        yield
    finally:
        end = time.perf_counter()
        path = ";".join(entry.name for entry in stack)
        ended = stack.pop()
        if stack:
            stack[-1].within += end - begin
        timings.seconds[name] = timings.seconds.get(name, 0.0) + end - begin - ended.within
        timings.spans.append((path, begin, end))
