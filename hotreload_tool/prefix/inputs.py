"""What a prefix was made of, and whether it is still as it was: asked before each use.

Files count by their time of change too, which nobody can set. Of the folders that are searched for headers the names count:
a new file may hide another.
"""
from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from ..stamp import Stamp, stamp

COARSE_NS = 50_000_000       # the clock of file times moves in steps, which differ among kernels and file systems
_NO_HEADER = re.compile(r"^[.#]|~$|\.(o|os|d|a|so|gcno|gcda|sw[a-z]|tmp|orig|rej|pyc)$")


class Folder(NamedTuple):
    stamp: Stamp | None
    names: frozenset[str]


class Inputs:
    """`files`: absolute. `folders`: absolute; they need not exist. `began`: time.time_ns() before the first was read."""

    def __init__(self, files: Iterable[str], folders: Iterable[str], began: int) -> None:
        self._files = {path: stamp(path) for path in files}
        self._folders = {path: Folder(stamp(path), _names(path)) for path in folders}
        self._began = began

    def add(self, path: str) -> None:
        """One more file, which is as it should be now."""
        self._files[path] = stamp(path)

    def changed_meanwhile(self) -> str | None:
        """A file that may have been written after it was read."""
        return next((path for path, known in self._files.items()
                     if known is None or max(known.modified_ns, known.changed_ns) >= self._began - COARSE_NS),
                    None)

    def changed(self) -> str | None:
        """A file or folder that is not what it was."""
        for path, before in self._files.items():
            if stamp(path) != before:
                return path
        for path, known in self._folders.items():
            found = stamp(path)
            if found != known.stamp:
                if (names := _names(path)) != known.names:
                    return path
                self._folders[path] = Folder(found, names)
        return None


def _names(folder: str) -> frozenset[str]:
    try:
        return frozenset(name for name in os.listdir(folder) if not _NO_HEADER.search(name))
    except OSError:
        return frozenset()


def read_dependencies(path: str, cwd: str) -> list[str]:
    """The absolute paths in a file that -MD wrote: one rule of make. Raises OSError, ValueError."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        text = file.read()
    _, colon, rest = text.replace("\\\n", " ").partition(":")
    if not colon:
        raise ValueError(f"{path} is not a rule of make")
    words = re.findall(r"(?:\\[ #]|\$\$|[^\s])+", rest)
    plain = (re.sub(r"\\([ #])", r"\1", word).replace("$$", "$") for word in words)
    return list(dict.fromkeys(os.path.normpath(os.path.join(cwd, word)) for word in plain))


def searched(files: Iterable[str], places: Iterable[str]) -> set[str]:
    """The folders in which a new file could be found in place of one of `files`. `places`: absolute, searched for headers."""
    places = [os.path.normpath(place) for place in places]
    found = {os.path.dirname(path) for path in files}
    below = {os.path.relpath(folder, place) for folder in found for place in places
             if folder == place or folder.startswith(place.rstrip("/") + "/")}
    return found | {os.path.normpath(os.path.join(place, folder)) for place in places for folder in {".", *below}}
