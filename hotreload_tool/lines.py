"""Source lines of code, from `.debug_line` of objects and of linked files.

Format: DWARF 4 and 5 §6.2, in its 32-bit form. Only lines are read, no file names: the header's tables are stepped over by
their length. Where something is damaged or of another version, there is no answer, and that is all.
"""
from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from .dwarf import DebugInfoError, Relocations, sleb, uleb

_COPY, _ADVANCE_PC, _ADVANCE_LINE, _CONST_ADD_PC, _FIXED_ADVANCE_PC = 1, 2, 3, 8, 9        # DW_LNS_*, table 7.25
_END_SEQUENCE, _SET_ADDRESS = 1, 2                                                         # DW_LNE_*, table 7.26
_NO_ARGUMENT = frozenset({_COPY, 6, 7, 10, 11, _CONST_ADD_PC})
_SET_ADDRESS_BYTES = b"\0\x09\x02"                                                         # with its length

Home = str | None                     # symbol or section that an address is relative to; None: image-relative
Place = tuple[Home, int]


@dataclass
class _Sequence:
    home: Home
    end: int = 0
    addresses: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


class LineTable:
    """Lines by address. `relocations`: those of the section, for an object."""

    def __init__(self, data: bytes, relocations: Relocations | None = None) -> None:
        self._data, self._relocations = data, relocations
        self._programs = list(_programs(data))
        self._read: set[int] = set()
        self._sequences: dict[Home, list[_Sequence]] = {}

    def of_object(self, home: str, offset: int) -> frozenset[int]:
        """Lines of the instruction `offset` bytes behind a symbol or section, as the section's relocations name it."""
        for number in range(len(self._programs)):
            self._ensure(number)
        return self._lines(home, offset)

    def of_image(self, start: int, address: int) -> frozenset[int]:
        """Lines of the instruction at `address` in the code section that began at `start`. Only the program that says
        something of that section is read."""
        at = self._data.find(_SET_ADDRESS_BYTES + struct.pack("<Q", start))
        while at >= 0:
            number = bisect_right(self._programs, (at, 1 << 62)) - 1
            if number >= 0:
                self._ensure(number)
            at = self._data.find(_SET_ADDRESS_BYTES + struct.pack("<Q", start), at + 1)
        return self._lines(None, address)

    def _lines(self, home: Home, address: int) -> frozenset[int]:
        """All lines of the last address that the table knows, at or before `address`: compilers name several for one."""
        found: set[int] = set()
        for sequence in self._sequences.get(home, []):
            index = bisect_right(sequence.addresses, address)
            if index and address < sequence.end:
                last = sequence.addresses[index - 1]
                while index and sequence.addresses[index - 1] == last:
                    index -= 1
                    found.add(sequence.lines[index])
        return frozenset(found)

    def _ensure(self, number: int) -> None:
        if number in self._read:
            return
        self._read.add(number)
        try:
            for sequence in _run(self._data, *self._programs[number], self._relocations):
                self._sequences.setdefault(sequence.home, []).append(sequence)
        except (IndexError, struct.error, DebugInfoError):
            return            # what was read so far is right; the rest is unknown


def _programs(data: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of each unit."""
    at = 0
    while at + 4 <= len(data):
        length = struct.unpack_from("<I", data, at)[0]
        if length >= 0xFFFFFFF0 or at + 4 + length > len(data):
            return
        yield at, at + 4 + length
        at += 4 + length


def _run(data: bytes, start: int, end: int, relocations: Relocations | None) -> Iterator[_Sequence]:
    version = struct.unpack_from("<H", data, start + 4)[0]
    if version not in (4, 5):
        return
    at = start + (8 if version == 5 else 6)
    program = at + 4 + struct.unpack_from("<I", data, at)[0]
    step, _, _, line_base, line_range, opcode_base = struct.unpack_from("<BBBbBB", data, at + 4)
    arguments = data[at + 10:at + 9 + opcode_base]
    if step != 1 or not line_range or not start < program <= end:
        return
    sequence, address, line, at = _Sequence(None), 0, 1, program
    while at < end:
        opcode = data[at]
        at += 1
        if opcode >= opcode_base:
            address += (opcode - opcode_base) // line_range
            line += line_base + (opcode - opcode_base) % line_range
        elif opcode == 0:
            size, at = uleb(data, at)
            what = data[at]
            if what == _SET_ADDRESS:
                sequence.home, address = _address(data, at + 1, relocations)
            at += size
            if what == _END_SEQUENCE:
                sequence.end = address
                yield sequence
                sequence, address, line = _Sequence(None), 0, 1
            continue
        elif opcode == _ADVANCE_PC:
            step, at = uleb(data, at)
            address += step
            continue
        elif opcode == _ADVANCE_LINE:
            step, at = sleb(data, at)
            line += step
            continue
        elif opcode == _FIXED_ADVANCE_PC:
            address += struct.unpack_from("<H", data, at)[0]
            at += 2
            continue
        elif opcode != _COPY:
            if opcode == _CONST_ADD_PC:
                address += (255 - opcode_base) // line_range
            for _ in range(arguments[opcode - 1]):
                _, at = uleb(data, at)
            continue
        sequence.addresses.append(address)
        sequence.lines.append(line)


def _address(data: bytes, at: int, relocations: Relocations | None) -> Place:
    if relocations is None:
        return None, int(struct.unpack_from("<Q", data, at)[0])
    found = relocations.get(at)
    if found is None:
        raise DebugInfoError(f".debug_line, byte {at:#x}: an address without a relocation")
    return found
