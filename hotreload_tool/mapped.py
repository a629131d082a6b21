"""A linked file of any size, mapped into memory: sections and symbols are read when they are asked for."""
from __future__ import annotations

import mmap
import os
from typing import cast

from . import elf
from .elf import Elf, ElfError, Section, Symbol


class MappedSection(Section):
    """`data` copies the whole section; `piece` and `find` below only look at what they need."""
    __slots__ = ("_map", "_size", "offset")

    def __init__(self, whole: mmap.mmap | bytes, header: tuple[int, ...]) -> None:
        _, self.type, self.flags, self.addr, self.offset, size, self.link, self.info, self.align, self.entsize = header
        self.index, self.name, self._map = -1, "", whole
        empty = self.type in (elf.SHT_NOBITS, elf.SHT_NULL)
        self._size, self.nobits = (0 if empty else size), (size if self.type == elf.SHT_NOBITS else 0)

    @property
    def data(self) -> bytes:                 # type: ignore[override]
        return self.piece(0, self._size)

    @property
    def size(self) -> int:
        return self.nobits or self._size

    def piece(self, at: int, size: int) -> bytes:
        return self._map[self.offset + at:self.offset + min(at + size, self._size)]

    def find(self, wanted: bytes, start: int, end: int) -> int:
        found = self._map.find(wanted, self.offset + start, self.offset + min(end, self._size))
        return found - self.offset if found >= 0 else -1


class MappedElf(Elf):
    """Symbols are parsed when they are first asked for."""
    _known: list[Symbol]
    _parsed: bool

    @property
    def symbols(self) -> list[Symbol]:
        if not self._parsed:
            self._parsed = True
            elf._parse_symbols(self)
        return self._known

    @symbols.setter
    def symbols(self, value: list[Symbol]) -> None:
        self._known, self._parsed = value, False


def read(path: str | os.PathLike[str]) -> MappedElf:
    """As `elf.read`, with the same errors. The file must not be cut short while it is in use."""
    where = os.fspath(path)
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise ElfError(f"{where}: not an ELF file")
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return parse(whole, where)


def parse(whole: mmap.mmap | bytes, where: str) -> MappedElf:
    """As `elf.parse`, of symbols only when they are asked for."""
    data = cast(bytes, whole)                # what reads headers only slices it and unpacks from it
    head, headers, strndx = elf._parse_header(data, where)
    found = MappedElf(where, head.type, head.machine, head.flags)
    found.ident, found.entry = head.ident, head.entry
    for index, header in enumerate(headers):
        if header[1] not in (elf.SHT_NOBITS, elf.SHT_NULL) and header[4] + header[5] > len(whole):
            raise ElfError(f"{where}: section {index} lies outside the file (truncated?)")
        found.add_section(MappedSection(whole, header))
    elf._name_sections(found, headers, strndx)
    return found


def piece(section: Section, at: int, size: int) -> bytes:
    """What there is of `size` bytes from `at` on in a section."""
    return section.piece(at, size) if isinstance(section, MappedSection) else section.data[at:at + size]


def find(section: Section, wanted: bytes, start: int, end: int | None = None) -> int:
    """As bytes.find of a section's content."""
    last = section.size if end is None else end
    return section.find(wanted, start, last) if isinstance(section, MappedSection) else section.data.find(wanted, start, last)
