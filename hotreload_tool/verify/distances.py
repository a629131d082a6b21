"""Tables of distances to constants that have no symbol: LLVM makes them of tables of pointers (RelLookupTableConverter).

What code does with them tells: it adds an entry to where the table begins.
"""
from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable

from .instructions import Instruction, decode, target_of
from .linked import SHF_EXECINSTR, Linked
from .side import functions_of

_ENTRY = re.compile(r"(?P<entry>\w+), dword ptr \[(?P<table>\w+) \+ \w+\*4\]")
_NEAR = 4                 # instructions within which the entry is added


def tables(file: Linked, boundaries: Iterable[int]) -> dict[int, list[int]]:
    """Where each of them begins -> to what its entries lead. It ends at a boundary, or before what leads into no data."""
    found: dict[int, list[int]] = {}
    known = sorted(boundaries)
    for symbol in functions_of(file)[1]:
        code = file.read(symbol.value, symbol.size)
        for start in _used(decode(code, symbol.value)):
            if start not in found:
                at = bisect_right(known, start)
                targets = list(_entries(file, start, known[at] if at < len(known) else start))
                if targets:
                    found[start] = targets
    return found


def _used(listed: list[Instruction]) -> Iterable[int]:
    for number, i in enumerate(listed):
        match = _ENTRY.fullmatch(i.operands) if i.mnemonic == "movsxd" else None
        if match is not None and any((n.mnemonic, n.operands) == ("add", f"{match['entry']}, {match['table']}")
                                     for n in listed[number + 1:number + _NEAR]):
            given = next((b for b in reversed(listed[:number]) if b.operands.partition(",")[0] == match["table"]), None)
            target = target_of(given) if given is not None and given.mnemonic == "lea" else None
            if target is not None:
                yield target


def _entries(file: Linked, start: int, end: int) -> Iterable[int]:
    section = file.section_of(start)
    if section is None or section.flags & SHF_EXECINSTR:
        return
    for at in range(start, min(end, section.end) - 3, 4):
        target = start + int.from_bytes(file.read(at, 4), "little", signed=True)
        place = file.section_of(target) if target > 0 else None
        if place is None or place.flags & SHF_EXECINSTR:
            return
        yield target
