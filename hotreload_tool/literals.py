"""String literals that live in the process already: new code refers to those, and brings only what is not there.

So a payload that says nothing new is transient (transient.py), and strings do not pile up generation by generation.
"""
from __future__ import annotations

import functools
import itertools
from bisect import bisect_right
from collections.abc import Iterable

from . import elf, mapped
from .elf import Elf, Rela, Section, Symbol
from .layered import later
from .live import LiveState

IN_PAYLOADS = 64         # the newest generations that stay mapped; in older ones strings are not looked for


class Literals:
    """Read-only bytes of an image and of payloads that stay mapped, without what patches may write over."""

    def __init__(self, live: LiveState, files: Iterable[Elf] = ()) -> None:
        """`files`: the image, and payloads; if there are none, the image is read."""
        self._live = live
        self._sections = [s for file in files or [mapped.read(live.path)] for s in file.sections if _is_constant(s)]

    @functools.cached_property
    def _named(self) -> tuple[list[int], list[int]]:
        """Starts of named data, and of what starts up to there the furthest end."""
        named = sorted((d.address, d.address + max(d.size, d.extent)) for d in later(self._live.data).values())
        return [start for start, _ in named], list(itertools.accumulate((end for _, end in named), max))

    def find(self, text: bytes, align: int) -> int | None:
        """Image-relative address of these bytes with a zero behind them, aligned as asked."""
        wanted = text + b"\0"
        for section in self._sections:
            at = mapped.find(section, wanted, 0)
            while at >= 0:
                address = section.addr + at
                if address % align == 0 and not self._is_named(address, address + len(wanted)):
                    return address
                at = mapped.find(section, wanted, at + 1)
        return None

    def _is_named(self, start: int, end: int) -> bool:
        starts, furthest = self._named
        before = bisect_right(starts, end - 1)
        index = self._live.index
        return before > 0 and furthest[before - 1] > start or index is not None and index.furthest_named(end) > start


def _is_constant(section: Section) -> bool:
    return section.name.startswith(".rodata") and section.type == elf.SHT_PROGBITS and \
        section.flags & (elf.SHF_ALLOC | elf.SHF_WRITE | elf.SHF_EXECINSTR) == elf.SHF_ALLOC


def reuse(obj: Elf, image: Section, known: Literals, prefix: str) -> None:
    """Let every reference of `obj` to a literal that lives go to where it lives. `image`: the section at address 0 of the
    image; `prefix`: of the new symbols' names."""
    moved: dict[int, int | None] = {}        # literal's symbol -> that of the living one
    for section in [s for s in obj.sections if s.flags & elf.SHF_ALLOC and s.type == elf.SHT_PROGBITS]:
        relas = obj.relocations(section)
        for index in {r.symbol for r in relas} - moved.keys():
            moved[index] = _living(obj, obj.symbols[index], image, known, f"{prefix}.{index}")
        if any(moved[r.symbol] is not None for r in relas):
            obj.set_relocations(section, [_moved(r, moved[r.symbol]) for r in relas])


def _moved(rela: Rela, symbol: int | None) -> Rela:
    return rela if symbol is None else Rela(rela.offset, rela.type, symbol, rela.addend)


def _living(obj: Elf, literal: Symbol, image: Section, known: Literals, name: str) -> int | None:
    """A symbol for the living copy of what `literal` names. Without a symbol of its own it is not clear where it begins."""
    if literal.binding != elf.STB_LOCAL or literal.type == elf.STT_SECTION or not 0 < literal.shndx < len(obj.sections):
        return None
    home = obj.sections[literal.shndx]
    if home.flags & (elf.SHF_MERGE | elf.SHF_STRINGS) != elf.SHF_MERGE | elf.SHF_STRINGS or home.entsize != 1:
        return None
    end = home.data.find(b"\0", literal.value)
    if end < 0:
        return None
    address = known.find(home.data[literal.value:end], home.align if literal.value % max(home.align, 1) == 0 else 1)
    if address is None:
        return None
    return obj.add_symbol(Symbol(name, image.index, address, binding=elf.STB_WEAK, other=elf.STV_HIDDEN)).index
