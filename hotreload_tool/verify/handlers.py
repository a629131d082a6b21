"""Unwind rules and exception tables of two functions that are the same: whether these are the same too.

Layout of exception tables: GCC's `.gcc_except_table` (Itanium C++ ABI, "Exception Handling Tables").
"""
from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from . import frames
from .frames import Frame, Reader
from .instructions import held_in
from .linked import Linked
from .lockstep import Different, Lockstep
from .side import Pointer, Side

_OMIT, _INDIRECT = 0xFF, 0x80
_ENCODED_SIZE = {0x0: 8, 0x3: 4, 0xB: 4, 0x4: 8, 0xC: 8}


@dataclass
class _Table:
    """An exception table: everything but the types as bytes, and the addresses of the types, first filter first."""
    plain: bytes
    types: list[int | None] = field(default_factory=list)
    indirect: bool = False


def frame_of(side: Side, code: int) -> Frame | None:
    file = side.space.file_at(code)
    return frames.of_file(file).get(code) if file is not None else None


def compare(lock: Lockstep, new: int, old: int, owner: str) -> None:
    """Raises Different if unwinding through the code at `new` is not what it is through that at `old`."""
    mine, theirs = frame_of(lock.new, new), frame_of(lock.old, old)
    if mine is None or theirs is None:
        if (mine is None) != (theirs is None):
            raise Different(f"an unwind description {'there' if mine else 'here'} and none {'here' if mine else 'there'}")
        return
    if mine.size != theirs.size:
        raise Different(f"an unwind description of {mine.size} bytes there, of {theirs.size} here")
    if mine.rules != theirs.rules or mine.common.rules != theirs.common.rules:
        raise Different("other unwind rules")
    if not lock.same_pointer(_personality(mine, lock.new), _personality(theirs, lock.old), owner):
        raise Different("another personality routine")
    if (mine.table is None) != (theirs.table is None):
        raise Different("an exception table on one side only")
    if mine.table is not None and theirs.table is not None:
        _compare_tables(lock, _table(lock.new, mine.table), _table(lock.old, theirs.table), owner)


def _personality(frame: Frame, side: Side) -> Pointer | None:
    address = frame.common.personality
    if address is None or not frame.common.personality_indirect:
        return None if address is None else Pointer(address)
    return held_in(side, address)


def _compare_tables(lock: Lockstep, mine: _Table, theirs: _Table, owner: str) -> None:
    if mine.plain != theirs.plain or len(mine.types) != len(theirs.types):
        raise Different("other call sites or actions in its exception table")
    for one, two in zip(mine.types, theirs.types):
        if (one is None) != (two is None):
            raise Different("another type is caught")
        if one is not None and two is not None and not lock.same_pointer(
                _type(lock.new, mine, one), _type(lock.old, theirs, two), owner):
            raise Different(f"it catches {lock.say(lock.new, _type(lock.new, mine, one))} there, "
                            f"{lock.say(lock.old, _type(lock.old, theirs, two))} here")


def _type(side: Side, table: _Table, address: int) -> Pointer | None:
    if not table.indirect:
        return Pointer(address)
    return held_in(side, address)


def _table(side: Side, address: int) -> _Table:
    file = side.space.file_at(address)
    if file is None:
        raise Different(f"an exception table at {address:#x}, where nothing is")
    return _table_of(file, address)


@lru_cache(maxsize=1 << 12)
def _table_of(file: Linked, address: int) -> _Table:
    section = file.section_of(address)
    if section is None:
        raise Different(f"an exception table at {address:#x}, where nothing is")
    reader = Reader(file.read(address, section.end - address), address)
    start_encoding = reader.byte()
    if start_encoding != _OMIT:
        reader.pointer(start_encoding)
    type_encoding = reader.byte()
    types_end = reader.uleb() if type_encoding != _OMIT else 0
    types_end += reader.at
    site_encoding = reader.byte()
    size = reader.uleb()
    sites_start, actions_start = reader.at, reader.at + size
    filters, end = _filters(reader, site_encoding, actions_start)
    plain = bytes([type_encoding & 0xF, site_encoding]) + reader.data[sites_start:end]
    for number in sorted(n for n in filters if n < 0):
        listed = _specification(reader, types_end - number - 1)
        filters |= set(listed)
        plain += repr((number, listed)).encode()
    table = _Table(plain, indirect=bool(type_encoding & _INDIRECT))
    width = _ENCODED_SIZE.get(type_encoding & 0xF, 0)
    for number in range(1, max(filters, default=0) + 1 if width else 1):
        reader.at = types_end - number * width
        table.types.append(reader.pointer(type_encoding))
    return table


def _specification(reader: Reader, at: int) -> list[int]:
    """The filters of an exception specification, which lies behind the types and ends with a zero."""
    reader.at = at
    found = []
    while number := reader.uleb():
        found.append(number)
    return found


def _filters(reader: Reader, encoding: int, actions: int) -> tuple[set[int], int]:
    """The filters that call sites lead to, and where the last action ends."""
    wanted = set()
    while reader.at < actions:
        for _ in range(3):
            reader.pointer(encoding)
        action = reader.uleb()
        wanted.add(action)
    filters, end = set(), actions
    for action in wanted - {0}:
        at: int | None = actions + action - 1
        for _ in range(len(reader.data)):
            if at is None:
                break
            reader.at = at
            filters.add(reader.sleb())
            place = reader.at
            following = reader.sleb()
            end = max(end, reader.at)
            at = place + following if following else None
    return filters, end
