"""Whether a number in code is the number of its own source line: what an edit further up changes, and nobody can notice."""
from __future__ import annotations

import io
from bisect import bisect_right
from functools import lru_cache
from typing import Any

from elftools.elf.elffile import ELFFile

from .linked import Linked

_SECTIONS_THAT_GROW = 1 << 30       # bytes of debug information beyond which lines are not looked at


def own(file: Linked | None, address: int, number: int) -> bool:
    """Whether `number` is a source line of the instruction at `address`, or of one right beside it."""
    if file is None or number <= 0:
        return False
    starts, lines = _read(file)
    at = bisect_right(starts, address) - 1
    return any(number in lines[i] for i in (at - 1, at, at + 1) if 0 <= i < len(lines))


@lru_cache(maxsize=16)
def _read(file: Linked) -> tuple[list[int], list[frozenset[int]]]:
    """Addresses at which rows begin, and the lines of each. Of debug information that cannot be read no line is known, so that
    numbers which differ are a difference."""
    if len(file.data) > _SECTIONS_THAT_GROW:
        return [], []
    try:
        found = _rows(file)
    except Exception:       # whatever pyelftools meets in a damaged file
        return [], []
    starts = sorted(found)
    return starts, [frozenset(found[a]) for a in starts]


def _rows(file: Linked) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    elf: Any = ELFFile(io.BytesIO(file.data))
    if elf.has_dwarf_info():
        dwarf = elf.get_dwarf_info()
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            for entry in program.get_entries() if program is not None else ():
                if entry.state is not None:
                    found.setdefault(entry.state.address, set()).add(entry.state.line)
    return found
