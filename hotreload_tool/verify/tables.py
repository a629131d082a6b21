"""The payload's header and tables as its bytes have them, pointers as the loader will make them.

Layout: runtime/hotreload_abi.h.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import NamedTuple

from .. import abi, names
from .linked import OBJECT, Linked, Unreadable

R_NONE, R_64, R_COPY, R_GLOB_DAT, R_JUMP_SLOT, R_RELATIVE, R_DTPMOD64, R_TPOFF64, R_IRELATIVE = 0, 1, 5, 6, 7, 8, 16, 18, 37


# Bytes of a row, and how many words at its front are pointers.
_ROW = {"redirects": abi.REDIRECT.size, "updates": abi.UPDATE.size, "parts": abi.PART.size, "tls_modules": 8, "init_array": 8,
        "heads": abi.HEAD.size, "eh_frame": 1}
_POINTERS = {"redirects": 3, "updates": 3, "parts": 1, "tls_modules": 1, "init_array": 1,
             "heads": 1}


class Redirect(NamedTuple):
    slot: int
    old: int
    new: int
    old_size: int
    new_size: int


class Part(NamedTuple):
    start: int
    size: int
    redirect: int


class Head(NamedTuple):
    at: int
    redirect: int


class Update(NamedTuple):
    address: int
    old_content: int
    new_content: int
    size: int
    flags: int


@dataclass
class Header:
    magic: int
    abi: int
    size: int
    generation: int
    id: str
    parent: str
    build_id: str
    build_id_padding: bytes
    flags: int


class Payload:
    """A payload's file with its header. Raises Unreadable where the header or a table lies outside of it."""

    def __init__(self, file: Linked) -> None:
        self.file = file
        raw = file.read(file.entry, abi.PAYLOAD_SIZE)
        magic, version, size, generation, identity, parent, build_id, build_id_size, flags = abi.PAYLOAD_HEAD.unpack_from(raw)
        self.header = Header(magic, version, size, generation, identity.hex(), parent.hex(), build_id[:build_id_size].hex(),
                             build_id[build_id_size:], flags)
        self.tables = {name: (self.pointer(file.entry + at), file.word(file.entry + at + 8))
                       for name, at in abi.PAYLOAD_TABLES.items()}

    @property
    def spans(self) -> dict[str, tuple[int, int]]:
        """(address, bytes) of the header, and of each table that has rows."""
        found = {"header": (self.file.entry, abi.PAYLOAD_SIZE)}
        found.update((name, (start, count * _ROW.get(name, 8))) for name, (start, count) in self.tables.items() if count)
        return found

    @property
    def pointer_words(self) -> set[int]:
        """The addresses of the words of header and tables that are pointers; all others are numbers."""
        found = {self.file.entry + at for at in abi.PAYLOAD_TABLES.values()}
        for name, pointers in _POINTERS.items():
            start, count = self.tables[name]
            size = min(count, len(self.file.data)) * _ROW[name]
            found.update(row + 8 * word for row in range(start, start + size, _ROW[name]) for word in range(pointers))
        return found

    def pointer(self, address: int) -> int:
        """The address that the word there holds once the payload is loaded; an import counts as 0. Raises Unreadable for one
        that would stay as linked, in a payload that is loaded anywhere."""
        value = loaded_word(self.file, address)
        relocation = self.file.relocation_at.get(address)
        if value and self.file.type != "ET_EXEC" and (relocation is None or relocation.type == R_NONE):
            raise Unreadable(f"{self.file.where}: the pointer at {address:#x} is not relocated")
        return value

    def _rows(self, name: str, pointers: str) -> list[tuple[int, ...]]:
        """`pointers` has a letter for each word of a row: p for a pointer, n for a number."""
        (start, count), words = self.tables[name], len(pointers)
        if count > len(self.file.data) // (8 * words) or count and self.file.load_of(start, 8 * words * count) is None:
            raise Unreadable(f"{self.file.where}: {count} {name} at {start:#x} lie outside the payload")
        return [tuple(self.pointer(at) if kind == "p" else self.file.word(at) for at, kind in zip(range(row, row + 8 * words, 8),
                                                                                                  pointers))
                for row in range(start, start + 8 * words * count, 8 * words)]

    @cached_property
    def redirects(self) -> list[Redirect]:
        return [Redirect(*row) for row in self._rows("redirects", "pppnn")]

    @cached_property
    def parts(self) -> list[Part]:
        return [Part(*row) for row in self._rows("parts", "pnn")]

    @cached_property
    def heads(self) -> list[Head]:
        return [Head(*row) for row in self._rows("heads", "pn")]

    @cached_property
    def updates(self) -> list[Update]:
        return [Update(*row) for row in self._rows("updates", "pppnn")]

    @cached_property
    def module_words(self) -> list[int]:
        return [row[0] for row in self._rows("tls_modules", "p")]

    @cached_property
    def unwind(self) -> tuple[int, int]:
        return self.tables["eh_frame"]

    @property
    def start(self) -> int:
        return min((s.address for s in self.file.loads), default=0) // 4096 * 4096

    @property
    def end(self) -> int:
        return -(-max((s.end for s in self.file.loads), default=0) // 4096) * 4096

    @cached_property
    def own_slots(self) -> Mapping[int, str]:
        """Slots that it brings: address -> name of the stub."""
        return slots(self.file, self.start, self.end)


def loaded_word(file: Linked, address: int) -> int:
    """What 8 bytes hold once the file is loaded at its own addresses; an import counts as 0."""
    relocation = file.relocation_at.get(address)
    if relocation is None or relocation.type == R_NONE:
        return file.word(address)
    return relocation.addend & 0xFFFFFFFFFFFFFFFF if relocation.type == R_RELATIVE else 0


@lru_cache(maxsize=32)
def slots(file: Linked, start: int = 0, end: int = 1 << 64) -> Mapping[int, str]:
    """Address -> name of the stub, of the slots that a file defines between two addresses."""
    return MappingProxyType({s.value: s.name.removesuffix(names.SLOT_SUFFIX) for s in file.symbols
                             if s.defined and s.type == OBJECT and s.name.endswith(names.SLOT_SUFFIX) and start <= s.value < end})
