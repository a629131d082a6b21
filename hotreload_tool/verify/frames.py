"""Unwind tables as linked: which code each description covers, and by which rules.

Layout: Linux Standard Base 5.0, §10.6 "Exception Frames"; pointer encodings: §10.5.1.
"""
from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from . import heads
from .linked import Linked, Unreadable

_PLAIN = {0x00: ("<Q", 8), 0x01: ("", 0), 0x02: ("<H", 2), 0x03: ("<I", 4), 0x04: ("<Q", 8), 0x09: ("", 0), 0x0A: ("<h", 2),
          0x0B: ("<i", 4), 0x0C: ("<q", 8)}
_PC_RELATIVE, _INDIRECT, _OMIT = 0x10, 0x80, 0xFF

# What is said of code that has not changed anything yet: the return address lies at CFA-8, and CFA is rsp+8.
AT_ENTRY = repr(((1, -8, 16), False)).encode() + b"\x0c\x07\x08\x90\x01"


@dataclass(frozen=True)
class Common:
    """A CIE. `rules` are its initial instructions and factors."""
    rules: bytes
    code_encoding: int
    table_encoding: int          # of the pointer to the exception table; _OMIT: there is none
    personality: int | None      # address, or with `personality_indirect` the address of a word with it
    personality_indirect: bool
    augmented: bool


@dataclass(frozen=True)
class Frame:
    """An FDE."""
    start: int
    size: int
    rules: bytes
    common: Common
    table: int | None            # address of the exception table

    @property
    def end(self) -> int:
        return self.start + self.size


class Reader:
    """A cursor over bytes that lie at `address`. Raises Unreadable at their end."""

    def __init__(self, data: bytes, address: int, at: int = 0, end: int | None = None) -> None:
        self.data, self.address, self.at, self.end = data, address, at, len(data) if end is None else end

    def take(self, size: int) -> bytes:
        if size < 0 or self.at < 0 or self.at + size > self.end:
            raise Unreadable(f"a table at {self.address:#x} ends in the middle of an entry")
        self.at += size
        return self.data[self.at - size:self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def uleb(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value
            if shift > 63:
                raise Unreadable(f"a number at {self.address + self.at:#x} is too long")

    def sleb(self) -> int:
        start = self.at
        value = self.uleb()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if self.data[self.at - 1] & 0x40 else value

    def string(self) -> bytes:
        end = self.data.find(b"\0", self.at, self.end)
        if end < 0:
            raise Unreadable(f"a name at {self.address + self.at:#x} does not end")
        found = self.data[self.at:end]
        self.at = end + 1
        return found

    def pointer(self, encoding: int) -> int | None:
        """An encoded pointer; None for one that is omitted or null. The indirection is the caller's."""
        if encoding == _OMIT:
            return None
        place = self.address + self.at
        form, size = _PLAIN.get(encoding & 0x0F, (None, 0))
        if form is None or encoding & 0x70 not in (0, _PC_RELATIVE):
            raise Unreadable(f"a pointer at {place:#x} has encoding {encoding:#x}")
        value = (self.uleb() if encoding & 0x0F == 1 else self.sleb()) if not form else struct.unpack(form, self.take(size))[0]
        if not value:
            return None
        return (value + place if encoding & _PC_RELATIVE else value) & 0xFFFFFFFFFFFFFFFF


@lru_cache(maxsize=64)
def read(data: bytes, address: int) -> tuple[list[Frame], bool]:
    """The descriptions in an `.eh_frame` that lies at `address`, and whether it ends with the mark that ends it, and padding."""
    found: list[Frame] = []
    commons: dict[int, Common] = {}
    at = 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at:at + 4], "little")
        if length == 0:
            return found, not any(data[at:])
        if length == 0xFFFFFFFF or at + 4 + length > len(data) or length < 8:
            raise Unreadable(f"the entry at {address + at:#x} of the unwind table has an impossible length")
        body = Reader(data, address, at + 8, at + 4 + length)
        link = int.from_bytes(data[at + 4:at + 8], "little")
        if link == 0:
            commons[at] = _common(body)
        elif at + 4 - link not in commons:
            raise Unreadable(f"the entry at {address + at:#x} of the unwind table belongs to no common entry")
        else:
            found.append(_frame(body, commons[at + 4 - link]))
        at += 4 + length
    return found, False


def _common(body: Reader) -> Common:
    start = body.at
    if body.byte() not in (1, 3):
        raise Unreadable(f"a common entry at {body.address + start:#x} has an unknown version")
    augmentation = body.string()
    if augmentation[:1] not in (b"", b"z"):
        raise Unreadable(f"a common entry at {body.address + start:#x} has augmentation {augmentation!r}")
    factors = (body.uleb(), body.sleb(), body.uleb())
    code, table, personality, indirect = 0, _OMIT, None, False
    if augmentation:
        end = body.uleb() + body.at
        for letter in augmentation[1:]:
            if letter == ord("R"):
                code = body.byte()
            elif letter == ord("L"):
                table = body.byte()
            elif letter == ord("P"):
                encoding = body.byte()
                personality, indirect = body.pointer(encoding), bool(encoding & _INDIRECT)
            elif letter not in b"SB":
                raise Unreadable(f"a common entry at {body.address + start:#x} has augmentation {augmentation!r}")
        body.at = end
    rules = repr((factors, b"S" in augmentation)).encode() + body.data[body.at:body.end].rstrip(b"\0")
    return Common(rules, code, table, personality, indirect, bool(augmentation))


def _frame(body: Reader, common: Common) -> Frame:
    start = body.pointer(common.code_encoding) or 0
    size = body.pointer(common.code_encoding & 0x0F) or 0
    table = None
    if common.augmented:
        end = body.uleb() + body.at
        table = body.pointer(common.table_encoding)
        body.at = end
    return Frame(start, size, body.data[body.at:body.end].rstrip(b"\0"), common, table)


@lru_cache(maxsize=16)
def of_file(file: Linked) -> dict[int, Frame]:
    """By the first byte they cover, the descriptions in a file's `.eh_frame` section; and by that behind a head, where they begin
    with one. Raises Unreadable."""
    found: dict[int, Frame] = {}
    for section in file.sections:
        if section.name == ".eh_frame" and not section.nobits:
            found.update({f.start: f for f in read(file.read(section.address, section.size), section.address)[0]})
    behind = {at + heads.SIZE: frame for start, frame in found.items() if (at := heads.place(file, start))}
    return {**behind, **found}
