"""Writes that reach the disk behind the patch, not before it.

What a file's bytes being on the disk protects from is a machine that fails, and with it all processes that a bundle could be
live in. A tool that is killed leaves what it wrote in any case. So a session hands a payload to a process while the disk
still works, and waits for the disk before it makes the next bundle of a chain: at most one can be torn, and is told by its
digests.
"""
from __future__ import annotations

import contextlib
import os
from concurrent.futures import Future, ThreadPoolExecutor

from .. import bundle


class Behind:
    """From `start` to `stop`, files written atomically are brought to the disk by a thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._waiting: list[Future[None]] = []

    def start(self) -> None:
        bundle.sync = self._later

    def wait(self) -> None:
        """Until all is on the disk. Raises OSError as the writer would have."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.result()

    def stop(self) -> None:
        bundle.sync = os.fsync
        with contextlib.suppress(OSError):       # the session has ended: the files are there, the system may be failing
            self.wait()
        self._pool.shutdown()

    def _later(self, descriptor: int) -> None:
        self._waiting.append(self._pool.submit(_sync, os.dup(descriptor)))


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
