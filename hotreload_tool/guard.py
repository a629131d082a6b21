"""Patches on probation (`--guard`): what became of one, as the process itself wrote it down.

The report is a file beside the process's socket (docs/formats.md); it outlives the process.
"""
from __future__ import annotations

import json
import os
import selectors
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import process
from .blockers import function_at
from .errors import HotreloadError
from .report import Document, readable_name

_SUFFIX = ".guard"
_SLICE = 0.1           # seconds between two looks at a report, while the process lives
_GRACE = 2.0           # seconds that an agent may need to say that a guard's time is over
_COURSE = 2.0          # seconds that a signal may need to end a process, once the report of the crash is written


class Crashed(HotreloadError):
    """New code crashed, or its process ended before the guard's time was over. `document` is the guard's report."""

    def __init__(self, message: str, detail: str, document: Document, *, became: str, exit_code: int = 1) -> None:
        self.message, self.detail, self.document = message, detail, {"guard": document}
        self.became = became          # of the process, in a few words
        self.exit_code = exit_code
        super().__init__(f"{message}: {detail}" if detail else message)


def read(pid: int) -> Document | None:
    """The report of the last guard in process `pid`; None if there is none, or it is just being written."""
    for directory in process.agent_directories(pid):
        try:
            found = json.loads((directory / f"{pid}{_SUFFIX}").read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and "state" in found:
            return found
    return None


def wait(pid: int, since: float, payloads: Mapping[str, Path]) -> Document | None:
    """Wait until the guard that was set after `since` (seconds since 1970) is over; its report, None if there is none.

    `payloads`: build-id -> the payload that it watches. Raises Crashed.
    """
    said = read(pid)
    if said is None or said["begun_ms"] < int(1000 * since):
        return None
    said, ended = _watch(pid, said)
    if said["state"] == "fired":
        raise _crash(said, payloads, ended)
    if ended and said["state"] == "armed":
        raise Crashed(f"process {pid} ended while the patch was on probation",
                      "no crash with new code on the stack was seen; it may have ended by itself, or by a signal that can't be "
                      "watched", said, became="it is gone", exit_code=3)
    return said


def _watch(pid: int, said: Document) -> tuple[Document, bool]:
    """The last report, and whether the process ended before the guard did."""
    until = said["ends_ms"] / 1000 + _GRACE
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return read(pid) or said, True
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(handle, selectors.EVENT_READ)
            ended = False
            while said["state"] == "armed" and not ended and time.time() < until:
                ended = bool(selector.select(_SLICE))
                said = read(pid) or said
            if not ended and said["state"] == "fired" and not said["resumed"]:
                ended = bool(selector.select(_COURSE))
    finally:
        os.close(handle)
    # A program that polls says so at its next poll; a crash after that time is none of the guard's.
    return ({**said, "state": "passed"} if said["state"] == "armed" and not ended else said), ended


def _crash(said: Document, payloads: Mapping[str, Path], ended: bool) -> Crashed:
    back = [i for i in said["images"] if i["build_id"] == said.get("build_id")] or said["images"]
    name = function_at(payloads.get(said.get("build_id", "")), said.get("address", 0))
    where = f" in {readable_name(name)}" if name and said["certain"] else f", perhaps from {readable_name(name)}" if name else ""
    message = f"generation {back[0]['generation']} crashed: {said['signal']}{where}, thread {said['tid']} ({said['thread']})"
    if not said["reverted"]:
        return Crashed(message, f"it could not be taken back: {said.get('problem') or 'no reason is known'}", said,
                       became="it is gone" if ended else "the new code is still live")
    course = ("the thread went on at its recovery safepoint" if said["resumed"] else
              "then the signal took its course, and the process ended" if ended else "then the signal took its course")
    return Crashed(message, f"it was taken back, generation {back[0]['before']} is live again; {course}", said,
                   became="it is gone" if ended else "it was taken back")


def watch_all(pids: Sequence[int], since: float, payloads: Mapping[str, Path]) -> list[tuple[int, Document | Crashed]]:
    """`wait` for each process that has a guard."""
    found: list[tuple[int, Document | Crashed]] = []
    for pid in pids:
        try:
            said = wait(pid, since, payloads)
        except Crashed as e:
            found.append((pid, e))
        else:
            found += [(pid, said)] if said else []
    return found
