"""What can go wrong, as people and exit codes see it.

Every error of the tool derives from `HotreloadError`; its `exit_code` is the one of
the command line.
"""
from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


class HotreloadError(Exception):
    """Base of all errors; the message says what, where, why and what to do."""
    exit_code = 1


@dataclass(frozen=True)
class Refusal:
    """One reason why a patch cannot be made."""
    code: str      # stable, for scripts: "data-size", "type-layout", …
    object: str    # name of the object file (names.object_name), "" for the whole image
    name: str      # the function, object, type or section concerned, "" for the whole object file
    reason: str    # what is in the way
    advice: str    # what to do instead

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.object, self.name) if part)
        return f"{where}: {self.reason}; {self.advice}" if where else f"{self.reason}; {self.advice}"


class Refused(HotreloadError):
    """A patch that cannot be made; nothing was changed. Carries all reasons, not the first."""
    exit_code = 1

    def __init__(self, refusals: Iterable[Refusal]) -> None:
        self.refusals = list(refusals)
        super().__init__("\n".join(str(r) for r in self.refusals) or "refused")


class Damaged(HotreloadError):
    """A file is not what it claims to be: truncated, altered, of another version."""
    exit_code = 5

    def __init__(self, file: object, where: str, why: str) -> None:
        self.file = str(file)
        self.where = where
        self.why = why
        super().__init__(f"{self.file}: {where}: {why}" if where else f"{self.file}: {why}")


class NotForImage(HotreloadError):
    """A sound bundle, but for another image, or not the next one for this image."""
    exit_code = 5


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def system_error(error: OSError) -> str:
    """An error of the system for people: which file, what, and what to do where that is known."""
    said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return f"{said}; make room there, and run this again" if error.errno in _FULL else said


@contextlib.contextmanager
def about(path: Path | str) -> Iterator[None]:
    """What the system says of a read or write inside names the file."""
    try:
        yield
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(path)) from e
