"""What lies in an object: functions, named objects, and the anonymous rest; and what each relocation means.

A *part* is a range of a section with an identity of its own. Parts with a unique name live in the process at one
address for ever; anonymous parts (string literals, jump tables, compiler clones …) belong to whoever refers to them.
"""
from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from types import ModuleType
from typing import NamedTuple

from . import elf, names
from .elf import Elf, Rela, Section, Symbol

_CLONE = re.compile(r"\.(?:constprop|isra|part|cold|lto_priv|llvm|specialized)(?:\.\d+)*(?:$|\.)")
# Parts of the code that initialises a unit's variables, and destructors of arrays: numbered anew at every compilation.
_PART_OF_START = re.compile(r"(?:_Z\d+__static_initialization_and_destruction_\d+|__cxx_global_(?:var_init|array_dtor)|__tcf_\d)")
_COLD = re.compile(r"\.cold(?:\.\d+)?$")
_NUMBERED = re.compile(r"^(?P<base>.+)\.\d+$")
# Compiler-made constants: numbered anew at every compilation, so that the name says nothing.
_MADE_UP = re.compile(r"^(?:\.L|CSWTCH\.|C\.\d+\.\d+$|__(?:func|FUNCTION|PRETTY_FUNCTION)__\.\d+$|"
                      r"switch\.table\.|reltable\.|__const\.)")
_C_IDENTIFIER = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_ARRAYS = frozenset({elf.SHT_INIT_ARRAY, elf.SHT_FINI_ARRAY, elf.SHT_PREINIT_ARRAY})
_ARRAY_NAMES = (".init_array", ".fini_array", ".preinit_array", ".ctors", ".dtors", ".jcr", ".tm_clone_table")
_UNTOUCHED = (".eh_frame", ".gcc_except_table", ".note", ".stapsdt", ".init", ".fini", ".plt")
_MARKERS = frozenset({"__patchable_function_entries", "__mcount_loc", "__bug_table", "__jump_table"})


class Part:
    """A range of a section that is one thing."""
    __slots__ = ("section", "start", "end", "name", "symbol", "symbols", "kind", "comdat", "alias_of", "static_local")

    def __init__(self, section: Section, start: int, end: int, kind: str, symbol: Symbol | None = None) -> None:
        self.section, self.start, self.end, self.kind = section, start, end, kind
        self.symbol = symbol                  # the symbol it is known by in the source object
        self.name: str | None = None          # image-wide unique name; None: anonymous
        self.symbols: list[Symbol] = [symbol] if symbol else []
        self.comdat: str | None = None
        self.alias_of: Part | None = None     # another name of the same bytes
        self.static_local: str | None = None  # "n" of a C static local "n.0"

    @property
    def is_code(self) -> bool:
        return self.kind in ("function", "clone")

    def __repr__(self) -> str:
        return f"<Part {self.kind} {self.name or (self.symbol and self.symbol.name)} in {self.section.name}>"


class Target(NamedTuple):
    """What a relocation refers to: a part and an offset in it, or a symbol of another object."""
    part: Part | None
    offset: int
    symbol: Symbol | None = None      # set when `part` is None


@dataclass
class Survey:
    elf: Elf
    arch: ModuleType
    object: str
    parts: dict[int, list[Part]] = field(default_factory=dict)       # section index -> parts with a symbol, by start
    by_symbol: dict[int, Part] = field(default_factory=dict)         # symbol index -> part
    comdat_of: dict[int, tuple[str, Section]] = field(default_factory=dict)  # section index -> signature, group
    cold_parent: dict[int, str] = field(default_factory=dict)        # section of a .cold half -> its function's symbol
    section_symbols: dict[int, Symbol] = field(default_factory=dict)       # section index -> its own symbol, if it has one
    _starts: dict[int, list[int]] = field(default_factory=dict)
    _anonymous: dict[tuple[int, int], Part] = field(default_factory=dict)
    _bias: dict[int, dict[int, int]] = field(default_factory=dict)
    _bounds: dict[int, list[int]] = field(default_factory=dict)

    def functions(self) -> list[Part]:
        """Parts that get a stub, in symbol order."""
        return [p for p in self._named() if p.kind == "function"]

    def data(self) -> list[Part]:
        return [p for p in self._named() if not p.is_code]

    def _named(self) -> list[Part]:
        found = [p for p in dict.fromkeys(self.by_symbol.values()) if p.name is not None]
        return found

    # ---- relocations -----------------------------------------------------------------------------

    def target(self, section: Section, rela: Rela) -> Target:
        """What `rela`, which applies to `section`, refers to. Offsets of code are exact; those of data keep the
        distance to the end of the instruction (they are only compared, and kept when a symbol takes over)."""
        symbol = self.elf.symbols[rela.symbol]
        if not symbol.defined or symbol.type == elf.STT_GNU_IFUNC:     # an IFUNC lies at its resolver, and is another function
            return Target(None, rela.addend, symbol)
        home = self.elf.sections[symbol.shndx]
        bias = self.arch.PC_BIAS if rela.type in self.arch.PC_RELATIVE | self.arch.GOT else 0
        part = self.by_symbol.get(symbol.index)
        if home.flags & elf.SHF_EXECINSTR:
            if part is not None:
                return Target(part, rela.addend + bias)
            return self._code_target(home, symbol.value + rela.addend + bias)
        if part is not None:
            return Target(part, rela.addend)
        return self._data_target(home, symbol, section, rela)

    def _code_target(self, home: Section, position: int) -> Target:
        part = self.covering(home, position)
        if part is None:
            part = self.anonymous(home, 0, home.size)
        return Target(part, position - part.start)

    def _data_target(self, home: Section, symbol: Symbol, section: Section, rela: Rela) -> Target:
        parts = self.parts.get(home.index, [])
        if len(parts) == 1 and parts[0].start == 0 and parts[0].end >= home.size:
            return Target(parts[0], symbol.value + rela.addend)
        if home.flags & elf.SHF_MERGE and symbol.type != elf.STT_SECTION:
            position, slack = symbol.value, 0  # the assembler keeps the label, so this is exact
        else:
            position, slack = self.position(section, rela)
            part = self.covering(home, position)
            if part is not None:
                return Target(part, symbol.value + rela.addend - part.start)
        part = self.chunk(home, position, slack)
        return Target(part, symbol.value + rela.addend - part.start)

    def covering(self, section: Section, position: int) -> Part | None:
        """The part with a symbol that holds `position` (its end included if nothing starts there)."""
        parts = self.parts.get(section.index)
        if not parts:
            return None
        index = bisect_right(self._starts[section.index], position) - 1
        while index > 0 and parts[index - 1].start == parts[index].start:
            index -= 1                           # the first of several names is the one that answers
        if index < 0:
            return None
        part = parts[index]
        return part if position < part.end or position == part.end == section.size else None

    def anonymous(self, section: Section, start: int, end: int) -> Part:
        part = self._anonymous.get((section.index, start))
        if part is None:
            kind = "clone" if section.flags & elf.SHF_EXECINSTR else "constant"
            part = self._anonymous[section.index, start] = Part(section, start, end, kind)
        return part

    def chunk(self, section: Section, position: int, slack: int = 0) -> Part:
        """The anonymous content at `position`: a string, a merged constant, or all up to the next place referred to.

        Where the position may be up to `slack` bytes early, the next place must lie behind that."""
        if not 0 <= position <= section.size:
            return self.anonymous(section, 0, section.size)
        unit = max(section.entsize, 1)
        if section.flags & elf.SHF_MERGE and section.flags & elf.SHF_STRINGS:
            end = position
            while end < section.size and section.data[end:end + unit].strip(b"\0"):
                end += unit
            return self.anonymous(section, position, min(end + unit, section.size))
        if section.flags & elf.SHF_MERGE:
            return self.anonymous(section, position, min(position + unit, section.size))
        bounds = self._bounds.get(section.index)
        if bounds is None:
            bounds = self._bounds[section.index] = self._boundaries(section)
        index = bisect_right(bounds, position + slack)
        return self.anonymous(section, position, bounds[index] if index < len(bounds) else section.size)

    def _boundaries(self, home: Section) -> list[int]:
        found = {home.size} | {p.start for p in self.parts.get(home.index, [])} | {p.end for p in self.parts.get(home.index, [])}
        for section in self.elf.sections:
            if not section.flags & elf.SHF_ALLOC:
                continue
            for rela in self.elf.relocations(section):
                symbol = self.elf.symbols[rela.symbol]
                if symbol.shndx == home.index:
                    found.add(self.position(section, rela)[0])
        return sorted(found)

    def position(self, section: Section, rela: Rela) -> tuple[int, int]:
        """The offset that `rela` refers to in the section of its symbol, and by how many bytes it may be early.

        The end of the instruction is decoded, since an immediate may follow the field."""
        place = self.elf.symbols[rela.symbol].value + rela.addend
        if rela.type not in self.arch.PC_RELATIVE or not section.flags & elf.SHF_EXECINSTR:
            return place, 0
        ends = self._bias.get(section.index)
        if ends is None:
            ends = self._bias[section.index] = self._decode(section)
        bias = ends.get(rela.offset)
        return (place + self.arch.PC_BIAS, self.arch.PC_BIAS) if bias is None else (place + bias, 0)

    def _decode(self, section: Section) -> dict[int, int]:
        fields = sorted(r.offset for r in self.elf.relocations(section) if r.type in self.arch.PC_RELATIVE)
        ends: dict[int, int] = {}
        for part in self.parts.get(section.index, []) or [self.anonymous(section, 0, section.size)]:
            for at, size in self.arch.instructions(section.data[part.start:part.end]):
                at += part.start
                for offset in fields[bisect_right(fields, at):bisect_right(fields, at + size - 1)]:
                    ends[offset] = at + size - offset
        return ends


def survey(obj: Elf, arch: ModuleType, object_name: str) -> Survey:
    """Find the parts of an object and name those that live on."""
    found = Survey(obj, arch, object_name)
    found.section_symbols = {x.shndx: x for x in obj.symbols if x.type == elf.STT_SECTION}
    _find_groups(found)
    _find_functions(found)
    _find_data(found)
    _index(found)
    _find_code_bound_data(found)
    _give_names(found)
    return found


def _find_groups(s: Survey) -> None:
    for group, signature, members in s.elf.groups():
        name = signature.name if signature.type != elf.STT_SECTION else s.elf.sections[signature.shndx].name
        for member in members:
            s.comdat_of[member] = (name, group)


def _add(s: Survey, section: Section, symbol: Symbol, kind: str) -> Part:
    part = Part(section, symbol.value, symbol.value + symbol.size, kind, symbol)
    if section.index in s.comdat_of:
        part.comdat = s.comdat_of[section.index][0]
    s.parts.setdefault(section.index, []).append(part)
    s.by_symbol[symbol.index] = part
    return part


def _is_untouched(section: Section) -> bool:
    return section.name.startswith(_UNTOUCHED) and not section.name.startswith((".init_array", ".fini_array")) \
        or section.name in _MARKERS


def _find_functions(s: Survey) -> None:
    for symbol in s.elf.symbols:
        if symbol.type != elf.STT_FUNC or not symbol.defined or not symbol.size:
            continue
        section = s.elf.sections[symbol.shndx]
        if not section.flags & elf.SHF_EXECINSTR or _is_untouched(section):
            continue
        local_in_group = symbol.binding == elf.STB_LOCAL and section.index in s.comdat_of
        made_up = symbol.binding == elf.STB_LOCAL and _PART_OF_START.match(symbol.name) is not None
        clone = local_in_group or made_up or _CLONE.search(symbol.name) is not None
        _add(s, section, symbol, "clone" if clone else "function")
        if _COLD.search(symbol.name):
            s.cold_parent[section.index] = _CLONE.split(symbol.name, maxsplit=1)[0]


def _data_kind(section: Section) -> str:
    if section.flags & elf.SHF_TLS:
        return "tbss" if section.type == elf.SHT_NOBITS else "tdata"
    if not section.flags & elf.SHF_WRITE:
        return "rodata"
    if section.name.startswith(".data.rel.ro"):
        return "relro"
    return "bss" if section.type == elf.SHT_NOBITS else "data"


def _find_data(s: Survey) -> None:
    for symbol in s.elf.symbols:
        if symbol.type not in (elf.STT_OBJECT, elf.STT_TLS) or not symbol.defined or not symbol.size:
            continue
        section = s.elf.sections[symbol.shndx]
        if section.flags & elf.SHF_ALLOC and not section.flags & (elf.SHF_MERGE | elf.SHF_EXECINSTR) \
                and not _is_untouched(section):
            _add(s, section, symbol, _data_kind(section))


def _index(s: Survey) -> None:
    """Sort the parts; of several names for the same bytes, public ones come first and are the one that answers."""
    for index, parts in s.parts.items():
        parts.sort(key=lambda p: (p.start, p.symbols[0].binding == elf.STB_LOCAL, p.kind == "clone", p.symbols[0].index))
        s._starts[index] = [p.start for p in parts]
        for before, part in zip(parts, parts[1:]):
            if part.start == before.start and part.symbols[0].binding == elf.STB_LOCAL:
                part.alias_of = before.alias_of or before
                part.alias_of.symbols.append(part.symbols[0])
                s.by_symbol[part.symbols[0].index] = part.alias_of
        s.parts[index] = [p for p in parts if p.alias_of is None]
        s._starts[index] = [p.start for p in s.parts[index]]


def _find_code_bound_data(s: Survey) -> None:
    """Tables that go with the code they were made for: those that point into the middle of a function (labels), and
    constants with distances from themselves to something else, which mean nothing at another address."""
    for section in s.elf.sections:
        parts = s.parts.get(section.index)
        if not parts or section.flags & elf.SHF_EXECINSTR:
            continue
        for rela in s.elf.relocations(section):
            owner = s.covering(section, rela.offset)
            if owner is None or owner.symbols[0].binding != elf.STB_LOCAL:
                continue
            relative = rela.type in s.arch.PC_RELATIVE and not section.flags & elf.SHF_WRITE
            if relative or _is_label(s, section, rela):
                owner.kind = "table"


def _is_label(s: Survey, section: Section, rela: Rela) -> bool:
    symbol = s.elf.symbols[rela.symbol]
    if rela.type not in s.arch.ABSOLUTE or not symbol.defined:
        return False
    return bool(s.elf.sections[symbol.shndx].flags & elf.SHF_EXECINSTR) and s.target(section, rela).offset != 0


def _give_names(s: Survey) -> None:
    taken: dict[str, int] = {}
    for symbol_index in sorted(s.by_symbol):
        part = s.by_symbol[symbol_index]
        symbol = part.symbols[0]
        if symbol.index != symbol_index or part.kind in ("clone", "table"):
            continue
        if symbol.binding != elf.STB_LOCAL:
            part.name = symbol.name
            continue
        if part.comdat is not None or not part.is_code and _MADE_UP.match(symbol.name):
            continue
        count = taken[symbol.name] = taken.get(symbol.name, 0) + 1
        part.name = names.unique_local(symbol.name if count == 1 else f"{symbol.name}#{count}", s.object)
        numbered = None if part.is_code else _NUMBERED.match(symbol.name)
        part.static_local = numbered["base"] if numbered else None


def is_linker_array(section: Section) -> bool:
    """Whether the linker lays this section out as an array with others of its name; a byte more would be an element."""
    return section.type in _ARRAYS or section.name.startswith(_ARRAY_NAMES) or _C_IDENTIFIER.match(section.name) is not None


def is_retargeted(section: Section) -> bool:
    """Whether references in this section are to stubs and unique names, rather than to the code itself."""
    return bool(section.flags & elf.SHF_ALLOC) and not _is_untouched(section) and section.type != elf.SHT_NOTE
