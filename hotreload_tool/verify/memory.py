"""The memory of a running process, read from outside: proc(5), /proc/PID/maps and /proc/PID/mem. The process is not asked."""
from __future__ import annotations

import os
import re
import struct
from bisect import bisect_right
from typing import NamedTuple

from .. import names
from ..errors import HotreloadError

_MAPPING = re.compile(r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<mode>\S{4}) (?P<offset>[0-9a-f]+) \S+ (?P<inode>\d+)"
                      r" *(?P<path>.*)")
_MOST_HEADERS = 1 << 10
_PT_LOAD, _PT_NOTE, _PF_X = 1, 4, 1
_NOTE = struct.Struct("<III")


class NotReadable(HotreloadError):
    """There is no such process, or its memory may not be read."""
    exit_code = 3


class Mapping(NamedTuple):
    start: int
    end: int
    mode: str             # "r-xp"
    offset: int
    inode: int
    path: str             # "" for memory without a file

    @property
    def has_file(self) -> bool:
        return self.inode != 0 or self.path.startswith("/")


class Loaded(NamedTuple):
    """An ELF image with the runtime, as it is found in memory."""
    path: str
    bias: int
    build_id: str


class Memory:
    """One process. Raises NotReadable. Close it, or use it as a context."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
                self.mappings = [_mapping(m) for line in file if (m := _MAPPING.match(line.rstrip("\n")))]
            self._file = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError) as e:
            raise NotReadable(f"there is no process {pid}") from e
        except PermissionError as e:
            raise NotReadable(f"the memory of process {pid} may not be read: be its user, and let kernel.yama.ptrace_scope "
                              "be 0, or be root") from e
        self._starts = [m.start for m in self.mappings]

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def read(self, address: int, size: int) -> bytes:
        """Up to `size` bytes: what can be read of them from the front, so none where nothing is mapped."""
        found = b""
        while len(found) < size:
            try:
                piece = os.pread(self._file, size - len(found), address + len(found))
            except (OSError, OverflowError):
                break
            if not piece:
                break
            found += piece
        return found

    def word(self, address: int) -> int | None:
        raw = self.read(address, 8)
        return int.from_bytes(raw, "little") if len(raw) == 8 else None

    def mapping(self, address: int) -> Mapping | None:
        at = bisect_right(self._starts, address) - 1
        return self.mappings[at] if at >= 0 and address < self.mappings[at].end else None

    def say(self, address: int) -> str:
        """An address for people."""
        found = self.mapping(address)
        if found is None:
            return f"{address:#x}, where nothing is mapped"
        return f"{address:#x} in {found.path or 'memory without a file'}"

    def images(self) -> list[Loaded]:
        """The images that carry the runtime: known by its note, each once, in order of address."""
        found = []
        for mapping in self.mappings:
            if mapping.offset == 0 and mapping.has_file and self.read(mapping.start, 4) == b"\x7fELF":
                loaded = self._image(mapping)
                if loaded is not None:
                    found.append(loaded)
        return found

    def _image(self, mapping: Mapping) -> Loaded | None:
        header = self.read(mapping.start, 64)
        if len(header) < 64:
            return None
        offset, = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        table = self.read(mapping.start + offset, 56 * count) if size == 56 and count <= _MOST_HEADERS else b""
        headers = [struct.unpack_from("<IIQQQQQQ", table, 56 * i) for i in range(len(table) // 56)]
        first = min((h[3] for h in headers if h[0] == _PT_LOAD), default=None)
        if first is None:
            return None
        bias = mapping.start - first // 4096 * 4096
        notes = [note for h in headers if h[0] == _PT_NOTE for note in _notes(self.read(bias + h[3], min(h[6], 1 << 16)), h[7])]
        build_id = next((content.hex() for owner, kind, content in notes if (owner, kind) == (b"GNU\0", 3)), "")
        code = [(bias + h[3], bias + h[3] + h[6]) for h in headers if h[0] == _PT_LOAD and h[1] & _PF_X]
        if not any(owner == names.NOTE_OWNER for owner, _, _ in notes) or not any(self._may_run(*found) for found in code):
            return None
        return Loaded(mapping.path.removesuffix(" (deleted)"), bias, build_id)


    def _may_run(self, start: int, end: int) -> bool:
        """Whether any of it is executable: who only reads a file maps it too."""
        return any("x" in m.mode for m in self.mappings if m.start < end and start < m.end)


def _mapping(m: re.Match[str]) -> Mapping:
    return Mapping(int(m["start"], 16), int(m["end"], 16), m["mode"], int(m["offset"], 16), int(m["inode"]), m["path"])


def _notes(raw: bytes, align: int) -> list[tuple[bytes, int, bytes]]:
    found, at, step = [], 0, 8 if align == 8 else 4
    while at + _NOTE.size <= len(raw):
        owner, size, kind = _NOTE.unpack_from(raw, at)
        content = at + _NOTE.size + owner + -(at + _NOTE.size + owner) % step
        if content + size > len(raw):
            break
        found.append((raw[at + _NOTE.size:at + _NOTE.size + owner], kind, raw[content:content + size]))
        at = content + size + -(content + size) % step
    return found
