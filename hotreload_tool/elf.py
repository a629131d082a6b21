"""ELF64 little-endian files, read by section and written back exactly.

Relocatable objects are rewritten by this module: symbols keep their indices (new ones are appended,
all of them global), so relocation sections nobody asked about are carried over byte for byte.
Constants are those of the System V gABI, chapters 4 and 5.
"""
from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
EM_X86_64 = 62
SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOTE, SHT_NOBITS, SHT_REL = 0, 1, 2, 3, 4, 7, 8, 9
SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY, SHT_GROUP, SHT_SYMTAB_SHNDX = 14, 15, 16, 17, 18
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_MERGE, SHF_STRINGS = 0x1, 0x2, 0x4, 0x10, 0x20
SHF_INFO_LINK, SHF_GROUP, SHF_TLS, SHF_COMPRESSED = 0x40, 0x200, 0x400, 0x800
SHN_UNDEF = 0
SHN_LORESERVE, SHN_XINDEX = 0xff00, 0xffff
SHN_ABS, SHN_COMMON = 0xfff1 - 0x10000, 0xfff2 - 0x10000   # reserved indices are kept negative here
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE, STT_TLS, STT_GNU_IFUNC = 0, 1, 2, 3, 4, 6, 10
STV_DEFAULT, STV_HIDDEN = 0, 2
GRP_COMDAT = 1

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")


class ElfError(ValueError):
    """The file is not what it should be. The message says where and why."""


class Rela(NamedTuple):
    offset: int      # bytes from the start of the section it applies to
    type: int
    symbol: int      # index into the symbol table
    addend: int


class Section:
    __slots__ = ("index", "name", "type", "flags", "addr", "link", "info", "align", "entsize", "data", "nobits")

    def __init__(self, name: str, type: int, flags: int = 0, data: bytes = b"", *, align: int = 1,
                 link: int = 0, info: int = 0, entsize: int = 0, nobits: int = 0, addr: int = 0) -> None:
        self.index = -1
        self.name, self.type, self.flags, self.addr = name, type, flags, addr
        self.link, self.info, self.align, self.entsize = link, info, align, entsize
        self.data: bytes = data          # empty for SHT_NOBITS
        self.nobits = nobits             # size in bytes of a SHT_NOBITS section

    @property
    def size(self) -> int:
        return self.nobits if self.type == SHT_NOBITS else len(self.data)

    def __repr__(self) -> str:
        return f"<Section {self.index} {self.name}>"


class Symbol:
    __slots__ = ("index", "name", "info", "other", "shndx", "value", "size")

    def __init__(self, name: str, shndx: int, value: int = 0, size: int = 0, *, type: int = STT_NOTYPE,
                 binding: int = STB_GLOBAL, other: int = STV_DEFAULT) -> None:
        self.index = -1
        self.name, self.shndx, self.value, self.size = name, shndx, value, size
        self.info, self.other = binding << 4 | type, other

    @property
    def type(self) -> int:
        return self.info & 15

    @property
    def binding(self) -> int:
        return self.info >> 4

    @property
    def visibility(self) -> int:
        return self.other & 3

    @property
    def defined(self) -> bool:
        """Whether it lies in a section of this file."""
        return self.shndx > 0

    def __repr__(self) -> str:
        return f"<Symbol {self.index} {self.name}>"


class Elf:
    """One file. `sections[i].index == i`, `symbols[i].index == i`; both may be appended to, never reordered."""

    def __init__(self, where: str, type: int = ET_REL, machine: int = EM_X86_64, flags: int = 0) -> None:
        self.where, self.type, self.machine, self.flags = where, type, machine, flags
        self.entry = 0
        self.ident = b"\x7fELF\x02\x01\x01" + b"\0" * 9
        self.sections: list[Section] = []
        self.symbols: list[Symbol] = []
        self._symtab: Section | None = None
        self._shstrndx = 0
        self._rela_of: dict[int, Section] = {}
        self._relas: dict[int, list[Rela]] = {}
        self._group_of: dict[int, Section] | None = None     # member -> group; made when first asked for

    # ---- building -----------------------------------------------------------------------------

    def add_section(self, section: Section) -> Section:
        section.index = len(self.sections)
        self.sections.append(section)
        if section.type == SHT_RELA:
            self._rela_of[section.info] = section
        return section

    def add_symbol(self, symbol: Symbol) -> Symbol:
        """Append a symbol. Only global and weak ones: local ones come first in a symbol table."""
        if symbol.binding == STB_LOCAL and any(s.binding for s in self.symbols[-1:]):
            raise ElfError(f"{self.where}: local symbol {symbol.name} after global ones")
        symbol.index = len(self.symbols)
        self.symbols.append(symbol)
        return symbol

    @classmethod
    def new(cls, where: str) -> "Elf":
        """An empty relocatable object with its null section, null symbol and tables."""
        elf = cls(where)
        elf.add_section(Section("", SHT_NULL, align=0))
        elf._symtab = elf.add_section(Section(".symtab", SHT_SYMTAB, align=8, entsize=_SYM.size))
        elf._symtab.link = elf.add_section(Section(".strtab", SHT_STRTAB, data=b"\0")).index
        elf._shstrndx = elf.add_section(Section(".shstrtab", SHT_STRTAB, data=b"\0")).index
        elf.add_symbol(Symbol("", SHN_UNDEF, binding=STB_LOCAL))
        return elf

    # ---- relocations --------------------------------------------------------------------------

    def rela_section(self, section: Section) -> Section | None:
        return self._rela_of.get(section.index)

    def relocations(self, section: Section) -> list[Rela]:
        """The relocations that apply to `section`, in file order. A shared list: change it through set_relocations."""
        cached = self._relas.get(section.index)
        if cached is not None:
            return cached
        rela = self._rela_of.get(section.index)
        found: list[Rela] = [] if rela is None else self._parse_relas(rela)
        self._relas[section.index] = found
        return found

    def _parse_relas(self, rela: Section) -> list[Rela]:
        if len(rela.data) % _RELA.size:
            raise ElfError(f"{self.where}: {rela.name}: size {len(rela.data)} is no multiple of {_RELA.size}")
        limit = len(self.symbols)
        found = [Rela(o, i & 0xffffffff, i >> 32, a) for o, i, a in _RELA.iter_unpack(rela.data)]
        for r in found:
            if r.symbol >= limit:
                raise ElfError(f"{self.where}: {rela.name}: relocation at {r.offset:#x} names symbol {r.symbol} of {limit}")
        return found

    def set_relocations(self, section: Section, relas: Sequence[Rela]) -> None:
        rela = self._rela_of.get(section.index)
        if rela is None:
            if not relas:
                return
            rela = self.add_section(Section(".rela" + section.name, SHT_RELA, SHF_INFO_LINK | section.flags & SHF_GROUP,
                                            align=8, entsize=_RELA.size, info=section.index, link=self.symtab.index))
            group = self._groups_by_member().get(section.index) if section.flags & SHF_GROUP else None
            if group is not None:
                self.join_group(group, rela)         # what applies to a member goes with the group
        self._relas[section.index] = list(relas)
        rela.data = b"".join(_RELA.pack(r.offset, r.symbol << 32 | r.type, r.addend) for r in relas)

    def join_group(self, group: Section, section: Section) -> None:
        """Make `section`, which has SHF_GROUP, a member of `group`."""
        self._groups_by_member()[section.index] = group
        group.data += struct.pack("<I", section.index)

    def _groups_by_member(self) -> dict[int, Section]:
        if self._group_of is None:
            self._group_of = {member: group for group, _, members in self.groups() for member in members}
        return self._group_of

    @property
    def symtab(self) -> Section:
        if self._symtab is None:
            raise ElfError(f"{self.where}: no symbol table")
        return self._symtab

    def groups(self) -> Iterator[tuple[Section, Symbol, list[int]]]:
        """(group section, signature symbol, member section indices) of every COMDAT group."""
        for section in self.sections:
            if section.type != SHT_GROUP or len(section.data) < 4 or len(section.data) % 4:
                continue
            words = struct.unpack(f"<{len(section.data) // 4}I", section.data)
            if words[0] & GRP_COMDAT:
                if section.info >= len(self.symbols) or any(w >= len(self.sections) for w in words[1:]):
                    raise ElfError(f"{self.where}: {section.name} {section.index}: names a symbol or section out of range")
                yield section, self.symbols[section.info], list(words[1:])

    # ---- writing ------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The whole file. Section contents keep their bytes; tables of names and symbols are made anew."""
        if self._symtab is not None:
            self._pack_symbols()
        shstrtab = self.sections[self._shstrndx]     # LLVM has one table for both kinds of names
        if shstrtab.type != SHT_STRTAB:
            raise ElfError(f"{self.where}: its sections have no names")
        names = _Strings(shstrtab.data)
        name_offsets = [names.offset(s.name) for s in self.sections]
        shstrtab.data = names.bytes()
        chunks, headers, at = [b"\0" * _EHDR.size], [], _EHDR.size
        for section, name in zip(self.sections, name_offsets):
            if section.type != SHT_NOBITS and section.data:
                pad = -at % min(max(section.align, 1), 4096)     # offsets need no alignment: a damaged one may be immense
                chunks.append(b"\0" * pad + section.data)
                at += pad
            offset = at if section.type != SHT_NULL else 0
            headers.append([name, section.type, section.flags, section.addr, offset, section.size,
                            section.link, section.info, section.align, section.entsize])
            at += len(section.data) if section.type != SHT_NOBITS else 0
        chunks.append(b"\0" * (-at % 8))
        at += -at % 8
        count, strndx = len(headers), shstrtab.index
        if count >= SHN_LORESERVE:                  # gABI: extended numbering, kept in section 0
            headers[0][5], headers[0][6] = count, strndx
            count, strndx = 0, SHN_XINDEX
        chunks += [_SHDR.pack(*h) for h in headers]
        chunks[0] = _EHDR.pack(self.ident, self.type, self.machine, 1, self.entry, 0, at, self.flags,
                               _EHDR.size, 0, 0, _SHDR.size, count, strndx)
        return b"".join(chunks)

    def _pack_symbols(self) -> None:
        symtab = self.symtab
        strtab = self.sections[symtab.link]
        names = _Strings(strtab.data)
        out, extended, needs_extended = [], [], len(self.sections) >= SHN_LORESERVE
        first_global = len(self.symbols)
        for s in self.symbols:
            if s.binding != STB_LOCAL and s.index < first_global:
                first_global = s.index
            raw = s.shndx + 0x10000 if s.shndx < 0 else s.shndx
            big = s.shndx >= SHN_LORESERVE
            extended.append(s.shndx if big else 0)
            name = 0 if s.type == STT_SECTION else names.offset(s.name)
            out.append(_SYM.pack(name, s.info, s.other, SHN_XINDEX if big else raw, s.value, s.size))
        symtab.data, symtab.info, strtab.data = b"".join(out), first_global, names.bytes()
        if needs_extended:
            self._extended_section(symtab).data = struct.pack(f"<{len(extended)}I", *extended)

    def _extended_section(self, symtab: Section) -> Section:
        for section in self.sections:
            if section.type == SHT_SYMTAB_SHNDX and section.link == symtab.index:
                return section
        return self.add_section(Section(".symtab_shndx", SHT_SYMTAB_SHNDX, align=4, entsize=4, link=symtab.index))


class _Strings:
    """A string table that is only ever appended to."""

    def __init__(self, data: bytes) -> None:
        self._data = bytearray(data or b"\0")
        self._at: dict[bytes, int] = {b"": 0}
        start = 0
        for part in bytes(self._data).split(b"\0"):
            self._at.setdefault(part, start)
            start += len(part) + 1

    def offset(self, name: str) -> int:
        raw = name.encode("utf-8", "surrogateescape")
        at = self._at.get(raw)
        if at is None:
            at = self._at[raw] = len(self._data)
            self._data += raw + b"\0"
        return at

    def bytes(self) -> bytes:
        return bytes(self._data)


# ---- reading ------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> Elf:
    with open(path, "rb") as file:
        return parse(file.read(), os.fspath(path))


def read_section(path: str | os.PathLike[str], name: str) -> bytes | None:
    """The bytes of one section of a file, without reading its symbols; None if there is none of that name."""
    with open(path, "rb") as file:
        data = file.read()
    elf, headers, strndx = _parse_header(data, os.fspath(path))
    table = _parse_section(data, elf.where, strndx, headers[strndx]).data
    for index, header in enumerate(headers):
        if _string(table, header[0], elf.where) == name:
            return _parse_section(data, elf.where, index, header).data
    return None


def parse(data: bytes, where: str = "ELF file") -> Elf:
    """Read a file by its section headers. Raises ElfError; never reads outside `data`."""
    elf, headers, strndx = _parse_header(data, where)
    for index, header in enumerate(headers):
        elf.add_section(_parse_section(data, where, index, header))
    _name_sections(elf, headers, strndx)
    _parse_symbols(elf)
    return elf


def _parse_header(data: bytes, where: str) -> tuple[Elf, list[tuple[int, ...]], int]:
    if len(data) < _EHDR.size or data[:4] != b"\x7fELF":
        raise ElfError(f"{where}: not an ELF file")
    if data[4] != 2 or data[5] != 1:
        raise ElfError(f"{where}: not a 64-bit little-endian ELF file")
    ident, type_, machine, _, entry, _, shoff, flags, _, _, _, shentsize, shnum, strndx = _EHDR.unpack_from(data)
    elf = Elf(where, type_, machine, flags)
    elf.ident, elf.entry = ident, entry
    if shoff == 0 or shentsize != _SHDR.size or shoff + _SHDR.size > len(data):
        raise ElfError(f"{where}: no section headers, or they lie outside the file (truncated?)")
    first = _SHDR.unpack_from(data, shoff)
    if shnum == 0:
        shnum = first[5]
    if strndx == SHN_XINDEX:
        strndx = first[6]
    if shnum > (len(data) - shoff) // _SHDR.size or strndx >= shnum:
        raise ElfError(f"{where}: {shnum} section headers do not fit into the file (truncated?)")
    elf._shstrndx = strndx
    headers = list(_SHDR.iter_unpack(data[shoff:shoff + shnum * _SHDR.size]))
    return elf, headers, strndx


def _parse_section(data: bytes, where: str, index: int, header: tuple[int, ...]) -> Section:
    _, type_, flags, addr, offset, size, link, info, align, entsize = header
    if type_ in (SHT_NOBITS, SHT_NULL):
        return Section("", type_, flags, align=align, link=link, info=info, entsize=entsize, addr=addr,
                       nobits=size if type_ == SHT_NOBITS else 0)
    if offset > len(data) or size > len(data) - offset:
        raise ElfError(f"{where}: section {index} lies outside the file (truncated?)")
    if align & (align - 1):
        raise ElfError(f"{where}: section {index} has alignment {align}, not a power of two")
    return Section("", type_, flags, data[offset:offset + size], align=align, link=link, info=info,
                   entsize=entsize, addr=addr)


def _string(table: bytes, offset: int, where: str) -> str:
    end = table.find(b"\0", offset)
    if offset > len(table) or end < 0:
        raise ElfError(f"{where}: name at {offset:#x} lies outside its string table")
    return table[offset:end].decode("utf-8", "surrogateescape")


def _name_sections(elf: Elf, headers: Sequence[tuple[int, ...]], strndx: int) -> None:
    if strndx and elf.sections[strndx].type != SHT_STRTAB:
        raise ElfError(f"{elf.where}: section {strndx} should hold the names of sections, and is no string table")
    table = elf.sections[strndx].data
    for section, header in zip(elf.sections, headers):
        section.name = _string(table, header[0], elf.where) if table else ""


def _parse_symbols(elf: Elf) -> None:
    elf._symtab = next((s for s in elf.sections if s.type == SHT_SYMTAB), None)
    for index, (name, info, other, shndx, value, size) in enumerate(symbol_rows(elf)):
        symbol = Symbol.__new__(Symbol)
        symbol.index, symbol.info, symbol.other, symbol.value, symbol.size = index, info, other, value, size
        symbol.name, symbol.shndx = name, shndx
        elf.symbols.append(symbol)


def symbol_rows(elf: Elf) -> Iterator[tuple[str, int, int, int, int, int]]:
    """(name, info, other, section, value, size) of each symbol in the file, as in `Symbol`. Raises ElfError."""
    section = next((s for s in elf.sections if s.type == SHT_SYMTAB), None)
    if section is None:
        return
    if section.link >= len(elf.sections) or section.size % _SYM.size or elf.sections[section.link].type != SHT_STRTAB:
        raise ElfError(f"{elf.where}: {section.name}: damaged symbol table")
    table = elf.sections[section.link].data
    extended = _extended_indices(elf, section)
    count = len(elf.sections)
    for index, (name, info, other, raw, value, size) in enumerate(_SYM.iter_unpack(section.data)):
        shndx = raw if raw < SHN_LORESERVE else raw - 0x10000
        if raw == SHN_XINDEX:
            shndx = extended[index] if index < len(extended) else count
        if shndx >= count:
            raise ElfError(f"{elf.where}: symbol {index} lies in section {shndx} of {count}")
        end = table.find(b"\0", name)
        if end < 0 or name > len(table):
            raise ElfError(f"{elf.where}: name of symbol {index} lies outside its string table")
        yield table[name:end].decode("utf-8", "surrogateescape"), info, other, shndx, value, size


def _extended_indices(elf: Elf, symtab: Section) -> tuple[int, ...]:
    for section in elf.sections:
        if section.type == SHT_SYMTAB_SHNDX and section.link == symtab.index:
            return struct.unpack(f"<{len(section.data) // 4}I", section.data[:len(section.data) // 4 * 4])
    return ()
