"""A function's own patchable head in place of a stub (HOTRELOAD_STUBS=entry).

The compiler leaves room before a function's entry, which takes the stub, and two bytes behind it: an instruction that does
nothing, until a patch makes it a jump to that stub (runtime/heads.c). Until then no call goes through anything. The slot
leads behind the head.
"""
from __future__ import annotations

from collections.abc import Collection, Mapping
from types import ModuleType

from . import elf, names
from .elf import Elf, Rela, Section, Symbol
from .survey import Part, Survey

_RECORDS = "__patchable_function_entries"
_WORD = 8      # bytes of a record


def find(s: Survey) -> dict[Part, int]:
    """Functions that get a head -> its offset in their sections. Of several names for the same code one has it."""
    rooms = {(s.elf.symbols[r.symbol].shndx, s.elf.symbols[r.symbol].value + r.addend)
             for section in _record_sections(s.elf) for r in s.elf.relocations(section)}
    found: dict[Part, int] = {}
    taken: set[tuple[int, int]] = set()
    for part in s.functions():
        at = s.arch.head_at(part.section.data, part.start)
        room = (part.section.index, part.start - s.arch.HEAD_ROOM)
        first = s.covering(part.section, part.start)
        if room in rooms and room not in taken and first is part and at is not None and at + s.arch.HEAD_SIZE <= part.end \
                and anchor(s, part.section) is not None:
            taken.add(room)
            found[part] = at
    _forget_records(s.elf, taken)
    return found


def _record_sections(obj: Elf) -> list[Section]:
    return [x for x in obj.sections if x.name == _RECORDS]


def _forget_records(obj: Elf, taken: set[tuple[int, int]]) -> None:
    """What the compiler recorded for us would only take space: linkers lose some of these records, so nobody reads them."""
    for section in _record_sections(obj):
        relas = [r for r in obj.relocations(section)
                 if (obj.symbols[r.symbol].shndx, obj.symbols[r.symbol].value + r.addend) not in taken]
        section.data = b"".join(section.data[r.offset:r.offset + _WORD] for r in relas)
        obj.set_relocations(section, [r._replace(offset=_WORD * i) for i, r in enumerate(relas)])


def make(s: Survey, part: Part, at: int) -> tuple[Symbol, int]:
    """Write a stub before the entry of `part` and an idle head at `at`. Returns the symbol that references go to, and the
    offset of the stub's field for the slot."""
    section, symbol = part.section, part.symbols[0]
    section.data, field = s.arch.with_head(section.data, part.start, at)
    section.align = max(section.align, s.arch.HEAD_SIZE)
    if symbol.binding == elf.STB_LOCAL:
        symbol = s.elf.add_symbol(Symbol(part.name or "", section.index, part.start, part.end - part.start,
                                         type=elf.STT_FUNC, other=elf.STV_HIDDEN))
    return symbol, field


def anchor(s: Survey, section: Section) -> Symbol | None:
    """What a slot's relocation names, with the distance as addend: not the function, whose symbol another image may interpose."""
    return s.section_symbols.get(section.index)


def code_of(obj: Elf, slot: Rela, public: Symbol) -> tuple[Symbol, int]:
    """The symbol of the code that a slot leads to, and how many bytes of it are a head. `public`: what its name means."""
    target = obj.symbols[slot.symbol]
    if target.type != elf.STT_SECTION:
        return target, slot.addend
    return public, target.value + slot.addend - public.value


def arm(obj: Elf, cpu: ModuleType) -> dict[str, int]:
    """Make all heads of an object jumps. What a patch brings is armed from the start: new functions go through their slots like
    any that has a stub, and a copy of one that lives leads to what lives. Returns the offsets of their stubs, by name."""
    stubs = {}
    public = {s.name: s for s in obj.symbols if s.defined and s.binding != elf.STB_LOCAL}
    for name, slot in public.items():
        relas = obj.relocations(obj.sections[slot.shndx]) if name.endswith(names.SLOT_SUFFIX) else []
        function = public.get(name.removesuffix(names.SLOT_SUFFIX))
        if function is None or not relas or obj.symbols[relas[0].symbol].type != elf.STT_SECTION:
            continue
        section = obj.sections[function.shndx]
        at = function.value + code_of(obj, relas[0], function)[1] - cpu.HEAD_SIZE
        section.data = section.data[:at] + cpu.armed_head(function.value, at) + section.data[at + cpu.HEAD_SIZE:]
        stubs[function.name] = function.value - cpu.HEAD_STUB_SIZE
    return stubs


class Detour:
    """Leads calls of functions with an armed head past it: through the slot, if the compiler left room for that, or else to the
    stub that the head is a jump to."""

    def __init__(self, obj: Elf, cpu: ModuleType, stubs: Mapping[str, int], brought: Collection[str],
                 living: Collection[str]) -> None:
        """`stubs`: of `arm`. `brought`: functions whose code the payload has in some object: calls go to the stub beside that.
        `living`: others, which are reached where they live."""
        self._obj, self._cpu, self._brought, self._living = obj, cpu, brought, living
        self._symbols = {s.name: s for s in obj.symbols if s.name.endswith(names.SLOT_SUFFIX)}
        for symbol in list(obj.symbols):
            if symbol.name in stubs and symbol.name in brought and symbol.defined:
                name = symbol.name + names.STUB_SUFFIX
                self._symbols[name] = obj.add_symbol(Symbol(name, symbol.shndx, stubs[symbol.name], binding=symbol.binding,
                                                            other=elf.STV_HIDDEN))

    def take(self) -> None:
        for section in self._obj.sections:
            if section.flags & elf.SHF_EXECINSTR:
                relas = self._obj.relocations(section)
                changed = [self._led(section, r) for r in relas]
                if changed != relas:
                    self._obj.set_relocations(section, changed)

    def _led(self, section: Section, rela: Rela) -> Rela:
        called, cpu = self._obj.symbols[rela.symbol], self._cpu
        is_brought = called.name in self._brought
        if called.type == elf.STT_GNU_IFUNC or not is_brought and called.name not in self._living:
            return rela
        if rela.type in cpu.GOT and rela.addend == -cpu.PC_BIAS and cpu.goes_through_word(section.data, rela.offset) \
                and names.made_up(called.name, "") == called.name:
            return rela._replace(type=cpu.PC32, symbol=self._symbol(called.name + names.SLOT_SUFFIX))
        if not cpu.is_call(section.data, rela.offset, rela.type, rela.addend):
            return rela
        if is_brought:
            return rela._replace(symbol=self._symbol(called.name + names.STUB_SUFFIX))
        return rela._replace(addend=rela.addend - cpu.HEAD_STUB_SIZE)

    def _symbol(self, name: str) -> int:
        if name not in self._symbols:
            self._symbols[name] = self._obj.add_symbol(Symbol(name, elf.SHN_UNDEF, binding=elf.STB_GLOBAL, other=elf.STV_HIDDEN))
        return self._symbols[name].index
