"""Whether a file is still the one that was read, without reading it again."""
from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """Equal for as long as the file is the same. `changed_ns` is the time that nobody can set."""
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def stamp(path: Path | str) -> Stamp | None:
    """None where there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
