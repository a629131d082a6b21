"""What a function or object *is*: a digest that is equal exactly when replacing one by the other changes nothing.

It covers bytes and relocations as (offset, kind, identity of the target, addend). Named targets count by name,
anonymous ones by content, recursively; C static locals by their name without its number and by order of use; a
function also by its unwind rules and exception tables.
"""
from __future__ import annotations

import hashlib
from typing import NamedTuple

from . import elf, unwind
from .elf import Rela, Section
from .survey import Part, Survey

SIZE = 16       # bytes of a digest


class Content(NamedTuple):
    digest: str              # 2 * SIZE hexadecimal digits
    refs: list[str]          # unique names reached, also through anonymous parts, in order of first use


class Digester:
    """Digests of one object's parts; keeps what parts share."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._relas: dict[int, list[Rela]] = {}
        self._own: dict[Part, tuple[bytes, list[tuple[bytes, Part | None, str]]]] = {}
        self._unwind = self._unwind_by_function()

    def content(self, part: Part) -> Content:
        """Digest `part` and all the anonymous parts it reaches, each numbered in order of discovery."""
        hash_ = hashlib.blake2b(digest_size=SIZE)
        numbers: dict[Part, int] = {}
        statics: dict[str, dict[str, int]] = {}
        refs: dict[str, None] = {}
        queue = [part]
        for current in queue:
            own, edges = self._stream(current)
            hash_.update(own)
            for edge, target, name in edges:
                hash_.update(edge)
                if target is part:
                    hash_.update(b"self")
                elif target is not None and target.name is None:
                    if target not in numbers:
                        numbers[target] = len(numbers)
                        queue.append(target)
                    hash_.update(b"#%d" % numbers[target])
                else:
                    refs.setdefault(name)
                    hash_.update(_identity(target, name, statics))
        return Content(hash_.hexdigest(), list(refs))

    def section(self, section: Section) -> Content:
        """A section as a whole."""
        return self.content(Part(section, 0, section.size, "section"))

    def _stream(self, part: Part) -> tuple[bytes, list[tuple[bytes, Part | None, str]]]:
        """The part's own bytes with relocated fields blanked, and its references."""
        found = self._own.get(part)
        if found is None:
            found = self._own[part] = self._make_stream(part)
        return found

    def _make_stream(self, part: Part) -> tuple[bytes, list[tuple[bytes, Part | None, str]]]:
        survey, section = self._survey, part.section
        relas = self._in_range(section, part.start, part.end)
        edges = [self._edge(section, r, r.offset - part.start) for r in relas]
        if section.type == elf.SHT_NOBITS:
            own = b"zeros"
        elif relas:
            blanked = bytearray(section.data[part.start:part.end])
            for r in relas:
                at = r.offset - part.start
                blanked[at:at + survey.arch.width(r.type)] = bytes(survey.arch.width(r.type))
            own = bytes(blanked[:part.end - part.start])
        else:
            own = section.data[part.start:part.end]
        for rules, fde_edges in self._unwind.get((section.index, part.start), []) if part.is_code else []:
            own += rules
            edges += fde_edges
        return b"%d:%d:" % (part.end - part.start, len(own)) + own, edges

    def _edge(self, section: Section, rela: Rela, offset: int) -> tuple[bytes, Part | None, str]:
        target = self._survey.target(section, rela)
        if target.part is None:
            name = target.symbol.name if target.symbol else ""
            return b"|%d,%d,%d:" % (offset, rela.type, target.offset), None, name
        return b"|%d,%d,%d:" % (offset, rela.type, target.offset), target.part, target.part.name or ""

    def _in_range(self, section: Section, start: int, end: int) -> list[Rela]:
        relas = self._relas.get(section.index)
        if relas is None:
            relas = self._relas[section.index] = sorted(self._survey.elf.relocations(section))
        if start == 0 and end >= section.size:
            return relas
        return [r for r in relas if start <= r.offset < end]

    def _unwind_by_function(self) -> dict[tuple[int, int], list[tuple[bytes, list[tuple[bytes, Part | None, str]]]]]:
        """(section index, start of the code) -> unwind rules as bytes, and references to tables and personality."""
        found: dict[tuple[int, int], list[tuple[bytes, list[tuple[bytes, Part | None, str]]]]] = {}
        for section in self._survey.elf.sections:
            if section.name != ".eh_frame" or not section.flags & elf.SHF_ALLOC:
                continue
            for fde in unwind.parse(section.data, self._survey.elf.relocations(section)):
                if fde.pc_begin is None:
                    continue
                symbol = self._survey.elf.symbols[fde.pc_begin.symbol_index]
                place = (symbol.shndx, symbol.value + fde.pc_begin.addend)
                fields = [(b"lsda", fde.lsda), (b"personality", fde.cie.personality)]
                edges = [self._table_edge(section, tag, Rela(*reloc)) for tag, reloc in fields if reloc is not None]
                found.setdefault(place, []).append((repr(fde.rules).encode(), edges))
        return found

    def _table_edge(self, section: Section, tag: bytes, rela: Rela) -> tuple[bytes, Part | None, str]:
        """A reference from an FDE: an absolute place, whatever the field's own encoding."""
        symbol = self._survey.elf.symbols[rela.symbol]
        if not symbol.defined or symbol.index in self._survey.by_symbol:
            return tag, self._survey.by_symbol.get(symbol.index), symbol.name
        home = self._survey.elf.sections[symbol.shndx]
        return tag, self._survey.chunk(home, symbol.value + rela.addend), ""


def _identity(target: Part | None, name: str, statics: dict[str, dict[str, int]]) -> bytes:
    if target is not None and target.static_local is not None:
        order = statics.setdefault(target.static_local, {})
        number = order.setdefault(name, len(order))
        return b"static %s %d %s" % (target.static_local.encode(errors="surrogateescape"), number, target.kind.encode())
    return b"=" + name.encode(errors="surrogateescape")
