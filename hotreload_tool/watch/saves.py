"""Which files were saved: inotify on the directories that files of the build lie in.

A save is complete when the file is closed or renamed into place, and the kernel says so. So nothing is polled, and no time
is spent on waiting whether more of a file might come.
"""
from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterable
from typing import Any

from inotify_simple import INotify, flags

_SAVED = flags.CLOSE_WRITE | flags.MOVED_TO
_GONE = flags.DELETE | flags.MOVED_FROM
_MASK = _SAVED | _GONE | flags.CREATE | flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR
_FRESH_NS = 20_000_000         # a file's time of change may be older than the clock by a tick of the kernel


class Overflow(Exception):
    """More was saved than the kernel kept account of: all may have changed."""


class Saves:
    """What was written, made or removed in the directories that are followed."""

    def __init__(self, wake: int | None = None) -> None:
        """`wake`: a descriptor that ends every wait when there is something to read (signals)."""
        self._inotify = INotify(nonblocking=True)
        self._folders: dict[int, str] = {}
        self._known: dict[str, int] = {}
        self._poll = select.poll()
        self._poll.register(self._inotify.fileno(), select.POLLIN)
        self.wake = wake
        if wake is not None:
            self._poll.register(wake, select.POLLIN)

    @property
    def folders(self) -> list[str]:
        return list(self._known)

    def follow(self, folder: str) -> bool:
        """False if it was followed already, or is not there."""
        if folder in self._known:
            return False
        try:
            handle = self._inotify.add_watch(folder, _MASK)
        except OSError:
            return False
        self._folders[handle], self._known[folder] = folder, handle
        return True

    def wait(self, seconds: float | None = None) -> set[str]:
        """Absolute paths of what changed, as soon as something did; empty after `seconds` or when `wake` is readable.
        Raises Overflow."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if deadline is None else max(0.0, 1000 * (deadline - time.monotonic()))
            ready = {fd for fd, _ in self._poll.poll(left)}
            if self._inotify.fileno() not in ready:
                return set()
            changed = self.now()
            if changed:
                return changed

    def now(self) -> set[str]:
        """The same without waiting. Raises Overflow."""
        return {path for event in self._inotify.read(timeout=0) for path in self._meaning(event)}

    def _meaning(self, event: Any) -> set[str]:
        handle, mask, _, name = event
        if mask & flags.Q_OVERFLOW:
            raise Overflow
        folder = self._folders.get(handle)
        if folder is None:
            return set()
        if mask & (flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED):
            self._forget(handle)
            return {folder}
        path = os.path.join(folder, name)
        if mask & flags.CREATE and not _is_complete(path):
            return set()
        return {path}

    def _forget(self, handle: int) -> None:
        folder = self._folders.pop(handle, None)
        if folder is not None:
            del self._known[folder]
            with contextlib.suppress(OSError):
                self._inotify.rm_watch(handle)

    def close(self) -> None:
        self._inotify.close()


def _is_complete(path: str) -> bool:
    """Whether a file that was just made has its content: a link has, and nobody will close it. Of others the end of the
    writing is awaited."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return os.path.islink(path) or found.st_nlink > 1 or not os.path.isfile(path)


def changed_since(paths: Iterable[str], moment: int) -> set[str]:
    """Those that changed since `moment` (time.time_ns()), by their time of change too, which nobody can set. A few that
    changed a little earlier may be among them."""
    return {path for path in paths if _changed_ns(path) >= moment - _FRESH_NS}


def _changed_ns(path: str) -> int:
    try:
        found = os.stat(path)
    except OSError:
        return 0
    return max(found.st_ctime_ns, found.st_mtime_ns)
