"""The members of a static library, thin ones too. Format: ar(5), with GNU's long names.

Nothing is unpacked to a path that an archive names; the files of a thin archive are read where it says they are.
"""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .errors import Damaged

_MAGIC, _THIN = b"!<arch>\n", b"!<thin>\n"
_HEADER = 60
_TABLES = (b"/", b"/SYM64/")         # the index of symbols


class Member(NamedTuple):
    name: str
    data: bytes


def members(path: str | os.PathLike[str]) -> Iterator[Member]:
    """The files in the archive at `path`, in their order. Raises Damaged, OSError."""
    data = Path(path).read_bytes()
    if data[:8] not in (_MAGIC, _THIN):
        raise Damaged(path, "", "is not a static library")
    thin, at, long_names = data[:8] == _THIN, 8, b""
    while at + _HEADER <= len(data):
        name, size = _header(path, data, at)
        start = at + _HEADER
        stored = 0 if thin and name not in (*_TABLES, b"//") else size
        content = data[start:start + stored]
        if len(content) < stored:
            raise Damaged(path, f"member at {at:#x}", f"its {stored} bytes lie beyond the end (truncated?)")
        at = start + stored + stored % 2
        if name == b"//":
            long_names = content
        elif name not in _TABLES:
            readable = _readable(path, name, long_names)
            yield Member(readable, Path(os.path.dirname(path), readable).read_bytes() if thin else content)


def _header(path: str | os.PathLike[str], data: bytes, at: int) -> tuple[bytes, int]:
    digits = data[at + 48:at + 58].strip()
    if data[at + 58:at + _HEADER] != b"`\n" or not digits.isdigit():
        raise Damaged(path, f"member at {at:#x}", "is not headed as one")
    return data[at:at + 16].rstrip(b" "), int(digits)


def _readable(path: str | os.PathLike[str], name: bytes, long_names: bytes) -> str:
    if name[:1] == b"/" and name[1:].isdigit():
        start = int(name[1:])
        end = long_names.find(b"/\n", start)
        if end < 0:
            raise Damaged(path, "table of names", f"no name at {start}")
        name = long_names[start:end]
    if b"\0" in name:
        raise Damaged(path, "table of names", f"{name[:60]!r} is no name of a file")
    return os.fsdecode(name.removesuffix(b"/"))
