"""Write ELF64 little-endian files from data, so that unit tests need no compiler.

A relocatable object, everything by name::

    from elfwriter import Group, Rel, Section, Symbol, relocatable

    blob = relocatable(
        sections=[
            Section(".text.f", b"\\xe8\\0\\0\\0\\0\\xc3", flags="AX", align=16,
                    relocations=[Rel(1, "PLT32", "g", -4)]),
            Section(".data.table", bytes(16), flags="AW", align=8,
                    relocations=[Rel(0, "64", "f"), Rel(8, "64", ".text.f", 5)]),
            Section(".bss.n", size=4, type="NOBITS", flags="AW", align=4),
            Section(".text.inl", b"\\xc3", flags="AXG"),
        ],
        symbols=[
            Symbol("file.c", type="FILE"),
            Symbol("f", ".text.f", size=6, type="FUNC", binding="GLOBAL"),
            Symbol("n", ".bss.n", size=4, type="OBJECT"),
            Symbol("inl", ".text.inl", size=1, type="FUNC", binding="WEAK"),
            Symbol("g"),                                        # undefined
        ],
        groups=[Group("inl", [".text.inl"])],
    )

* `Rel.symbol` names a `Symbol`, or a section: the section symbol is then made.
* Two sections (or symbols) of one name: give each a `key`, and refer to that.
* Sections keep their order; groups come first and relocation sections follow their target, as GNU as writes them.
* The symbol table is sorted as the gABI wants it: section symbols and locals, then the others.

A linked image (no dynamic linking, nothing to run: enough for code that *reads* images)::

    from elfwriter import Section, Symbol, image, note

    blob = image("DYN", sections=[
        Section(".note.gnu.build-id", note(b"GNU", 3, bytes(20)), type="NOTE", flags="A", align=4),
        Section(".text", b"\\xc3", flags="AX", address=0x1000),
        Section(".data", bytes(8), flags="AW", address=0x3000),
    ], symbols=[Symbol("main", ".text", size=1, type="FUNC", binding="GLOBAL")])

`Symbol.value` is always an offset into the section; in an image the section's address is added. Program headers are
made from the sections: one PT_LOAD for each run of equal permissions, PT_NOTE, PT_TLS, PT_DYNAMIC; more by `segments`.

Numbers are from the System V gABI, chapters 4 and 5, and the x86-64 psABI; names of relocations from pyelftools.
"""
from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from elftools.elf.enums import ENUM_RELOC_TYPE_x64

SECTION_TYPES = {
    "NULL": 0, "PROGBITS": 1, "SYMTAB": 2, "STRTAB": 3, "RELA": 4, "HASH": 5, "DYNAMIC": 6, "NOTE": 7, "NOBITS": 8, "REL": 9,
    "DYNSYM": 11, "INIT_ARRAY": 14, "FINI_ARRAY": 15, "PREINIT_ARRAY": 16, "GROUP": 17, "SYMTAB_SHNDX": 18,
    "X86_64_UNWIND": 0x70000001,
}
# The letters of `readelf -S`.
SECTION_FLAGS = {"W": 1, "A": 2, "X": 4, "M": 0x10, "S": 0x20, "I": 0x40, "L": 0x80, "O": 0x100, "G": 0x200, "T": 0x400,
                 "C": 0x800, "R": 0x200000, "E": 0x80000000}
SYMBOL_TYPES = {"NOTYPE": 0, "OBJECT": 1, "FUNC": 2, "SECTION": 3, "FILE": 4, "COMMON": 5, "TLS": 6, "IFUNC": 10}
BINDINGS = {"LOCAL": 0, "GLOBAL": 1, "WEAK": 2, "UNIQUE": 10}
VISIBILITIES = {"DEFAULT": 0, "INTERNAL": 1, "HIDDEN": 2, "PROTECTED": 3}
SEGMENT_TYPES = {"LOAD": 1, "DYNAMIC": 2, "INTERP": 3, "NOTE": 4, "PHDR": 6, "TLS": 7, "GNU_EH_FRAME": 0x6474E550,
                 "GNU_STACK": 0x6474E551, "GNU_RELRO": 0x6474E552}
FILE_TYPES = {"REL": 1, "EXEC": 2, "DYN": 3}
SHN_ABS, SHN_COMMON, SHN_XINDEX, SHN_LORESERVE = 0xFFF1, 0xFFF2, 0xFFFF, 0xFF00
GRP_COMDAT = 1
PAGE = 0x1000

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_PHDR = struct.Struct("<IIQQQQQQ")
_SYM = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")


@dataclass(frozen=True)
class Rel:
    """One RELA entry: `type` is "PC32", "R_X86_64_PC32" or a number; `symbol` a key, a section's key, or "" for none."""
    offset: int
    type: str | int
    symbol: str
    addend: int = 0

    @property
    def number(self) -> int:
        if isinstance(self.type, int):
            return self.type
        name = self.type if self.type.startswith("R_") else "R_X86_64_" + self.type
        return 41 if name == "R_X86_64_GOTPCRELX" else int(ENUM_RELOC_TYPE_x64[name])     # pyelftools lacks that one


@dataclass
class Section:
    """`size` counts where `data` is empty (NOBITS); `info` and `link` are numbers or keys of sections."""
    name: str
    data: bytes = b""
    type: str | int = "PROGBITS"
    flags: str | int = ""
    align: int = 1
    size: int | None = None
    entsize: int = 0
    link: str | int = 0
    info: str | int = 0
    address: int = 0
    relocations: Sequence[Rel] = ()
    key: str = ""

    def __post_init__(self) -> None:
        self.key = self.key or self.name

    @property
    def type_number(self) -> int:
        return self.type if isinstance(self.type, int) else SECTION_TYPES[self.type]

    @property
    def flag_bits(self) -> int:
        return self.flags if isinstance(self.flags, int) else sum(SECTION_FLAGS[letter] for letter in self.flags)

    @property
    def memory_size(self) -> int:
        return len(self.data) if self.size is None else self.size


@dataclass
class Symbol:
    """`section` is a section's key, "*ABS*", "*COM*", or None for undefined."""
    name: str
    section: str | None = None
    value: int = 0
    size: int = 0
    type: str | int = "NOTYPE"
    binding: str | int = ""          # default: LOCAL where defined, GLOBAL where undefined
    visibility: str | int = "DEFAULT"
    key: str = ""

    def __post_init__(self) -> None:
        self.key = self.key or self.name
        if self.type == "FILE":
            self.section = "*ABS*"
        if self.binding == "":
            self.binding = "GLOBAL" if self.section is None else "LOCAL"

    @property
    def binding_number(self) -> int:
        return self.binding if isinstance(self.binding, int) else BINDINGS[self.binding]

    @property
    def info(self) -> int:
        return self.binding_number << 4 | (self.type if isinstance(self.type, int) else SYMBOL_TYPES[self.type])

    @property
    def other(self) -> int:
        return self.visibility if isinstance(self.visibility, int) else VISIBILITIES[self.visibility]


@dataclass(frozen=True)
class Group:
    """A section group: `signature` is a symbol's key, `members` sections' keys (their relocations join by themselves)."""
    signature: str
    members: Sequence[str]
    flags: int = GRP_COMDAT
    name: str = ".group"


@dataclass(frozen=True)
class Segment:
    """An extra program header over the sections from `first` to `last` (keys); the range is empty where both are ""."""
    type: str | int
    flags: str = "R"
    first: str = ""
    last: str = ""


def note(owner: bytes, type: int, descriptor: bytes) -> bytes:
    """One note record, 4-byte aligned (gABI chapter 5); `owner` without its terminating zero."""
    name = owner + b"\0"
    return (struct.pack("<III", len(name), len(descriptor), type) + _pad(name, 4) + _pad(descriptor, 4))


def relocatable(sections: Sequence[Section], symbols: Sequence[Symbol] = (), groups: Sequence[Group] = (), *,
                machine: int = 62, flags: int = 0) -> bytes:
    """An ET_REL file. Raises KeyError for a name that is declared nowhere. `machine` 62 is EM_X86_64."""
    layout = _Layout(sections, symbols, groups)
    return _emit(layout, "REL", machine, flags, [], 0)


def image(kind: str, sections: Sequence[Section], symbols: Sequence[Symbol] = (), segments: Sequence[Segment] = (), *,
          machine: int = 62, entry: int = 0) -> bytes:
    """An ET_DYN or ET_EXEC file; `kind` is "DYN" or "EXEC". Allocated sections must be in order of address;
    one whose `address` is 0 follows the one before it, aligned (on a new page where permissions change)."""
    layout = _Layout(_placed(sections, PAGE if kind == "EXEC" else 0), symbols, [])
    return _emit(layout, kind, machine, 0, _program_headers(layout.outs, segments), entry)


def section_symbols(symbols: Iterable[Symbol], names: Iterable[str], sections: Iterable[str]) -> list[Symbol]:
    """The section symbols that relocations against `names` need."""
    declared = {s.key for s in symbols}
    known = set(sections)
    wanted = dict.fromkeys(n for n in names if n and n not in declared)
    for name in wanted:
        if name not in known:
            raise KeyError(f"relocation against {name!r}, which is neither a symbol nor a section")
    return [Symbol("", name, type="SECTION", key=name) for name in wanted]


@dataclass
class _Out:
    """A section as it will lie in the file."""
    name: str
    type: int
    flags: int
    align: int
    entsize: int
    data: bytes
    size: int
    address: int = 0
    link: int = 0
    info: int = 0
    offset: int = 0
    source: Section | None = None


@dataclass
class _Layout:
    """All sections of the file in their order, with indexes resolved."""
    sections: Sequence[Section]
    given: Sequence[Symbol]
    groups: Sequence[Group]
    outs: list[_Out] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)     # key of a section -> its index

    def __post_init__(self) -> None:
        self.outs = [_Out("", 0, 0, 0, 0, b"", 0)]
        self._place()
        self._symbols()
        self._relocations()
        self._groups()
        self._links()
        self._string_tables()

    def _place(self) -> None:
        grouped = {member for group in self.groups for member in group.members}
        self.group_outs = [self._add(_Out(g.name, SECTION_TYPES["GROUP"], 0, 4, 4, b"", 0)) for g in self.groups]
        self.rela_outs: list[tuple[Section, _Out]] = []
        self.rela_index: dict[str, int] = {}
        for section in self.sections:
            if section.key in self.index:
                raise KeyError(f"two sections with the key {section.key!r}")
            self.index[section.key] = len(self.outs)
            self._add(_Out(section.name, section.type_number, section.flag_bits, section.align, section.entsize,
                           section.data, section.memory_size, section.address, source=section))
            if section.relocations:
                bits = SECTION_FLAGS["I"] | (SECTION_FLAGS["G"] if section.key in grouped else 0)
                self.rela_index[section.key] = len(self.outs)
                out = self._add(_Out(".rela" + section.name, SECTION_TYPES["RELA"], bits, 8, _RELA.size, b"", 0))
                out.info = self.index[section.key]
                self.rela_outs.append((section, out))
        self.symtab = self._add(_Out(".symtab", SECTION_TYPES["SYMTAB"], 0, 8, _SYM.size, b"", 0))
        self.strtab = self._add(_Out(".strtab", SECTION_TYPES["STRTAB"], 0, 1, 0, b"", 0))
        self.symtab.link = len(self.outs) - 1
        self.symtab_index = len(self.outs) - 2
        self.shndx = None
        if len(self.outs) >= SHN_LORESERVE:
            self.shndx = self._add(_Out(".symtab_shndx", SECTION_TYPES["SYMTAB_SHNDX"], 0, 4, 4, b"", 0))
            self.shndx.link = self.symtab_index
        self.shstrtab = self._add(_Out(".shstrtab", SECTION_TYPES["STRTAB"], 0, 1, 0, b"", 0))

    def _add(self, out: _Out) -> _Out:
        self.outs.append(out)
        return out

    def _symbols(self) -> None:
        names = [r.symbol for s in self.sections for r in s.relocations] + [g.signature for g in self.groups]
        made = section_symbols(self.given, names, self.index)
        files = [s for s in self.given if s.type == "FILE"]
        locals_ = [s for s in self.given if s.type != "FILE" and s.binding_number == 0]
        others = [s for s in self.given if s.type != "FILE" and s.binding_number != 0]
        ordered = files + made + locals_ + others
        self.symbol_index: dict[str, int] = {"": 0}
        for i, symbol in enumerate(ordered, 1):
            if symbol.key in self.symbol_index and symbol.type != "FILE":
                raise KeyError(f"two symbols with the key {symbol.key!r}")
            self.symbol_index.setdefault(symbol.key, i)
        self.strtab.data, offsets = _strings(s.name for s in ordered)
        packed, extended = [bytes(_SYM.size)], [0]
        for symbol in ordered:
            section, value = self._home(symbol)
            extended.append(section if symbol.section in self.index and section >= SHN_LORESERVE else 0)
            shndx = SHN_XINDEX if extended[-1] else section
            packed.append(_SYM.pack(offsets[symbol.name], symbol.info, symbol.other, shndx, value, symbol.size))
        self.symtab.data = b"".join(packed)
        self.symtab.info = 1 + len(files) + len(made) + len(locals_)
        if self.shndx:
            self.shndx.data = struct.pack(f"<{len(extended)}I", *extended)

    def _home(self, symbol: Symbol) -> tuple[int, int]:
        special = {None: 0, "*ABS*": SHN_ABS, "*COM*": SHN_COMMON}
        if symbol.section in special:
            return special[symbol.section], symbol.value
        assert symbol.section is not None
        index = self.index[symbol.section]
        return index, self.outs[index].address + symbol.value

    def _relocations(self) -> None:
        for section, out in self.rela_outs:
            out.link = self.symtab_index
            out.data = b"".join(_RELA.pack(r.offset, self.symbol_index[r.symbol] << 32 | r.number, r.addend)
                                for r in section.relocations)

    def _groups(self) -> None:
        for group, out in zip(self.groups, self.group_outs):
            members = [index for key in group.members for index in (self.index[key], self.rela_index.get(key)) if index]
            out.data = struct.pack(f"<{len(members) + 1}I", group.flags, *members)
            out.link, out.info = self.symtab_index, self.symbol_index[group.signature]

    def _links(self) -> None:
        for out in self.outs:
            if out.source is not None:
                out.link = _resolve(out.source.link, self.index)
                out.info = _resolve(out.source.info, self.index)

    def _string_tables(self) -> None:
        self.shstrtab.data, self.name_offsets = _strings(out.name for out in self.outs)
        for out in self.outs:
            out.size = out.size or len(out.data)


def _resolve(reference: str | int, index: Mapping[str, int]) -> int:
    return reference if isinstance(reference, int) else index[reference]


def _strings(names: Iterable[str]) -> tuple[bytes, dict[str, int]]:
    """A string table and each name's offset in it."""
    blob, offsets = bytearray(b"\0"), {"": 0}
    for name in names:
        if name not in offsets:
            offsets[name] = len(blob)
            blob += name.encode() + b"\0"
    return bytes(blob), offsets


def _pad(data: bytes, align: int) -> bytes:
    return data + bytes(-len(data) % align)


def _up(value: int, align: int) -> int:
    return value + -value % max(align, 1)


def _permissions(flags: int) -> int:
    """p_flags (PF_R 4, PF_W 2, PF_X 1) of a section's sh_flags."""
    return 4 | (2 if flags & 1 else 0) | (1 if flags & 4 else 0)


def _placed(sections: Sequence[Section], base: int) -> list[Section]:
    at, permissions = base or PAGE, -1
    for section in sections:
        bits = section.flag_bits
        if not bits & SECTION_FLAGS["A"]:
            continue
        if section.address == 0:
            if permissions not in (-1, _permissions(bits)):
                at = _up(at, PAGE)
            section.address = _up(at, section.align)
        at, permissions = section.address + section.memory_size, _permissions(bits)
    return list(sections)


@dataclass
class _Program:
    type: int
    flags: int
    align: int
    outs: list[_Out]


def _program_headers(outs: Sequence[_Out], extra: Sequence[Segment]) -> list[_Program]:
    allocated = [o for o in outs if o.flags & SECTION_FLAGS["A"]]
    loads: list[_Program] = []
    for out in allocated:
        if not loads or loads[-1].flags != _permissions(out.flags):
            loads.append(_Program(SEGMENT_TYPES["LOAD"], _permissions(out.flags), PAGE, []))
        loads[-1].outs.append(out)
    special = [_Program(SEGMENT_TYPES["NOTE"], 4, o.align, [o]) for o in allocated if o.type == SECTION_TYPES["NOTE"]]
    special += [_Program(SEGMENT_TYPES["DYNAMIC"], 6, 8, [o]) for o in allocated if o.type == SECTION_TYPES["DYNAMIC"]]
    tls = [o for o in allocated if o.flags & SECTION_FLAGS["T"]]
    if tls:
        special.append(_Program(SEGMENT_TYPES["TLS"], 4, max(o.align for o in tls), tls))
    keys = [o.source.key if o.source else "" for o in allocated]
    for segment in extra:
        chosen = allocated[keys.index(segment.first):keys.index(segment.last) + 1] if segment.first else []
        number = segment.type if isinstance(segment.type, int) else SEGMENT_TYPES[segment.type]
        special.append(_Program(number, sum({"R": 4, "W": 2, "X": 1}[f] for f in segment.flags), 1 if chosen else 16, chosen))
    return loads + special


def _emit(layout: _Layout, kind: str, machine: int, flags: int, programs: list[_Program], entry: int) -> bytes:
    outs = layout.outs
    body = bytearray(_EHDR.size + _PHDR.size * len(programs))
    for out in outs[1:]:
        loaded = kind != "REL" and out.flags & SECTION_FLAGS["A"]
        aligned = _up(len(body), out.align)
        out.offset = aligned + (out.address - aligned) % PAGE if loaded else aligned
        if out.type != SECTION_TYPES["NOBITS"]:
            body += bytes(out.offset - len(body)) + out.data
    table = _up(len(body), 8)
    body += bytes(table - len(body))
    many = len(outs) >= SHN_LORESERVE
    names = len(outs) - 1
    if many:
        outs[0].size, outs[0].link = len(outs), names
    for out in outs:
        body += _SHDR.pack(layout.name_offsets[out.name], out.type, out.flags, out.address, out.offset, out.size, out.link,
                           out.info, out.align, out.entsize)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    phdr = [_pack_program(p) for p in programs]
    header = _EHDR.pack(ident, FILE_TYPES[kind], machine, 1, entry, _EHDR.size if phdr else 0, table, flags, _EHDR.size,
                        _PHDR.size if phdr else 0, len(phdr), _SHDR.size, 0 if many else len(outs),
                        SHN_XINDEX if many else names)
    body[:_EHDR.size] = header
    body[_EHDR.size:_EHDR.size + _PHDR.size * len(phdr)] = b"".join(phdr)
    return bytes(body)


def _pack_program(program: _Program) -> bytes:
    if not program.outs:
        return _PHDR.pack(program.type, program.flags, 0, 0, 0, 0, 0, program.align)
    first = program.outs[0]
    stored = [o for o in program.outs if o.type != SECTION_TYPES["NOBITS"]]
    end = max(o.address + o.size for o in program.outs)
    file_size = stored[-1].address + stored[-1].size - first.address if stored else 0
    return _PHDR.pack(program.type, program.flags, first.offset, first.address, first.address, file_size,
                      end - first.address, program.align)
