"""A linked ELF file as the verifier reads it: by structures of its own, and by nothing that made the file.

Addresses are image-relative. Whatever the bytes are, reading raises Unreadable or gives what the file says, in time and
memory that the size of the file bounds.
"""
from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from . import heads

# gABI, chapters 4 and 5; x86-64 psABI §4.4; LSB "Symbol Versioning".
PF_X, PF_W, PF_R = 1, 2, 4
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_TLS, SHF_COMPRESSED = 1, 2, 4, 0x400, 0x800
DT_NEEDED, DT_SONAME, DT_RPATH, DT_TEXTREL, DT_RUNPATH, DT_FLAGS = 1, 14, 15, 22, 29, 30
DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_STRSZ, DT_PLTRELSZ, DT_JMPREL = 5, 6, 7, 8, 10, 2, 23
DT_RELRSZ, DT_RELR = 35, 36
DT_VERSYM, DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFF0, 0x6FFFFFFE, 0x6FFFFFFF
EM_X86_64 = 62
NOTYPE, OBJECT, FUNC, SECTION, FILE, TLS, IFUNC = 0, 1, 2, 3, 4, 6, 10
LOCAL = 0                     # binding
UNDEFINED, ABSOLUTE_INDEX = 0, 0xFFF1
DEFAULT = 0                   # visibility: another image may define the symbol instead
_EHDR, _PHDR, _SHDR = (struct.Struct(f) for f in ("<16sHHIQQQIHHHHHH", "<IIQQQQQQ", "<IIQQQQIIQQ"))
_SYM, _RELA, _NOTE = (struct.Struct(f) for f in ("<IBBHQQ", "<QQq", "<III"))
_SHT_NULL, _SHT_SYMTAB, _SHT_NOBITS = 0, 2, 8
_FILE_TYPES = {2: "ET_EXEC", 3: "ET_DYN"}
_SEGMENT_TYPES = {1: "PT_LOAD", 2: "PT_DYNAMIC", 3: "PT_INTERP", 4: "PT_NOTE", 7: "PT_TLS", 0x6474E551: "PT_GNU_STACK",
                  0x6474E552: "PT_GNU_RELRO"}
_MOST_SEGMENTS, _MOST_VERSIONS = 1 << 8, 1 << 16
_VERSION_GLOBAL = 1           # up to here a symbol has no version
_MOST_ZEROS = 1 << 26         # bytes that one read may find in no file: of variables without content
_LONGEST_NAME = 1 << 16       # bytes of a symbol's or section's name; C++ makes names of some thousands
_DAMAGE = (struct.error, ValueError, IndexError, OverflowError, MemoryError)


class Unreadable(ValueError):
    """The file is no ELF image, or a damaged one; the message says where."""


class Segment(NamedTuple):
    type: str           # "PT_LOAD" …; a number in hexadecimal, of kinds that nobody asks for
    flags: int
    offset: int         # in the file
    address: int
    file_size: int
    size: int           # in memory
    align: int

    @property
    def end(self) -> int:
        return self.address + self.size


class Section(NamedTuple):
    name: str
    flags: int
    address: int
    size: int
    nobits: bool
    offset: int         # in the file
    link: int

    @property
    def end(self) -> int:
        return self.address + self.size


class Symbol(NamedTuple):
    name: str
    value: int
    size: int
    type: int
    binding: int        # 0: local
    visibility: int
    section: int

    @property
    def defined(self) -> bool:
        return self.section != UNDEFINED


class Relocation(NamedTuple):
    offset: int
    type: int
    symbol: int         # index into the dynamic symbols; 0: none
    addend: int


@dataclass(frozen=True)
class Import:
    """A dynamic symbol, and the version it has or asks for ("" if none) with the file that version was linked from."""
    symbol: Symbol
    version: str
    file: str


class Linked:
    """A program, shared library or payload. Raises Unreadable."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where = data, where
        try:
            self._read()
        except _DAMAGE as e:
            if isinstance(e, Unreadable):
                raise
            raise Unreadable(f"{where}: not a sound ELF image: {e or type(e).__name__}") from e

    def _read(self) -> None:
        if self.data[:4] != b"\x7fELF" or self.data[4:6] != b"\2\1":
            raise Unreadable(f"{self.where}: not a 64-bit little-endian ELF file")
        _, kind, self.machine, _, self.entry, start, _, _, _, size, count, section_size, _, _ = _EHDR.unpack_from(self.data)
        if count > _MOST_SEGMENTS or size != _PHDR.size or section_size not in (0, _SHDR.size):
            raise Unreadable(f"{self.where}: headers of sizes that no linker makes")
        self.type = _FILE_TYPES.get(kind, f"{kind:#x}")
        self.segments = [Segment(_SEGMENT_TYPES.get(kind, f"{kind:#x}"), flags, offset, address, in_file, in_memory, align)
                         for kind, flags, offset, address, _, in_file, in_memory, align
                         in _PHDR.iter_unpack(self._file(start, count * _PHDR.size))]
        self.loads = sorted((s for s in self.segments if s.type == "PT_LOAD" and s.size), key=lambda s: s.address)
        self._load_starts, self._load_ends = [s.address for s in self.loads], [s.end for s in self.loads]
        rows = self._section_table()
        self.sections = [Section(self._section_name(row[0], rows), row[2], row[3], row[5], row[1] == _SHT_NOBITS, row[4], row[6])
                         for row in rows]
        table = self._symbol_table([row[1] for row in rows])
        self.symbols, self.by_address, self.by_name = table.symbols, table.by_address, table.by_name

    def _symbol_table(self, types: list[int]) -> _Symbols:
        for section, kind in zip(self.sections, types):
            if kind == _SHT_SYMTAB:
                names = self.sections[section.link] if section.link < len(self.sections) else None
                if names is None or section.flags & SHF_COMPRESSED:
                    raise Unreadable(f"{self.where}: its symbol table has no names")
                table = _symbols(self._file(section.offset, section.size), self._file(names.offset, names.size))
                found = heads.split(self, table.symbols, FUNC)
                return table if found == table.symbols else _Symbols(found)
        return _symbols(b"", b"")

    def _section_table(self) -> list[tuple[int, ...]]:
        """Sections hold no byte twice: else the time to read them would have no bound."""
        start, count = struct.unpack_from("<Q", self.data, 40)[0], struct.unpack_from("<H", self.data, 60)[0]
        rows = list(_SHDR.iter_unpack(self._file(start, count * _SHDR.size)))
        if sum(size for _, kind, _, _, _, size, *_ in rows if kind not in (_SHT_NULL, _SHT_NOBITS)) > len(self.data):
            raise Unreadable(f"{self.where}: its sections are larger than the file")
        return rows

    def _section_name(self, offset: int, rows: list[tuple[int, ...]]) -> str:
        """"" where the file has no names of sections."""
        names, = struct.unpack_from("<H", self.data, 62)
        if names >= len(rows):
            return ""
        start = rows[names][4] + offset
        end = self.data.find(b"\0", start, start + _LONGEST_NAME)
        if end < 0:
            raise Unreadable(f"{self.where}: the names of its sections do not end")
        return self.data[start:end].decode("utf-8", "surrogateescape")

    def _file(self, offset: int, size: int) -> bytes:
        if offset + size > len(self.data):
            raise Unreadable(f"{self.where}: {size} bytes at {offset:#x} lie outside the file")
        return self.data[offset:offset + size]

    @cached_property
    def units(self) -> dict[tuple[str, int], str]:
        """(name, address) of what is file-local -> the file it was compiled from, as its object says (gABI, STT_FILE)."""
        found, unit = {}, ""
        for symbol in self.symbols:
            if symbol.type == FILE:
                unit = symbol.name
            elif symbol.binding == LOCAL and unit:
                found[symbol.name, symbol.value] = unit
        return found

    @cached_property
    def blocks(self) -> dict[tuple[str, int], int]:
        """(name, address) of what is file-local -> a number for the file. Without the last file: behind its symbols linkers put
        those that are local to the image."""
        found, block = {}, 0
        for number, symbol in enumerate(self.symbols):
            if symbol.type == FILE:
                block = number
            elif symbol.binding == LOCAL and block:
                found[symbol.name, symbol.value] = block
        return {place: number for place, number in found.items() if number != block and self.symbols[number].name}

    # ---- memory -------------------------------------------------------------------------------------------------

    def load_of(self, address: int, size: int = 1) -> Segment | None:
        """The segment that holds all of these bytes once loaded."""
        at = bisect_right(self._load_starts, address) - 1
        return self.loads[at] if at >= 0 and address + size <= self._load_ends[at] else None

    def read(self, address: int, size: int) -> bytes:
        """What the file puts there; zeros for memory that it does not fill. Raises Unreadable."""
        load = self.load_of(address, size)
        if load is None:
            raise Unreadable(f"{self.where}: no segment holds {size} bytes at {address:#x}")
        at = address - load.address
        if size > len(self.data) + _MOST_ZEROS:
            raise Unreadable(f"{self.where}: {size} bytes at {address:#x} are more than it can hold")
        held = self.data[load.offset + at:load.offset + min(at + size, load.file_size)] if at < load.file_size else b""
        return held.ljust(size, b"\0")

    def word(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def executable(self, address: int, size: int = 1) -> bool:
        load = self.load_of(address, size)
        return load is not None and bool(load.flags & PF_X)

    def section_of(self, address: int) -> Section | None:
        """The allocated section that holds `address`. TLS blocks share addresses with what follows and are left out."""
        at = bisect_right(self._section_starts, address) - 1
        if at >= 0 and address < self._allocated[at].end:
            return self._allocated[at]
        return None

    @cached_property
    def _allocated(self) -> list[Section]:
        return sorted((s for s in self.sections if s.flags & SHF_ALLOC and s.size and not (s.flags & SHF_TLS and s.nobits)),
                      key=lambda s: s.address)

    @cached_property
    def _section_starts(self) -> list[int]:
        return [s.address for s in self._allocated]

    # ---- dynamic section ----------------------------------------------------------------------------------------

    @cached_property
    def dynamic(self) -> list[tuple[int, int]]:
        where = next((s for s in self.segments if s.type == "PT_DYNAMIC"), None)
        if where is None or not where.size:           # a program linked without libraries has an empty one
            return []
        raw = self.read(where.address, where.size // 16 * 16)
        found = list(struct.iter_unpack("<qQ", raw))
        return found[:next((i for i, (tag, _) in enumerate(found) if tag == 0), len(found))]

    def tag(self, tag: int) -> int:
        return next((value for t, value in self.dynamic if t == tag), 0)

    @cached_property
    def relocations(self) -> list[Relocation]:
        """Those that the loader makes: RELA tables and those of the procedure linkage table."""
        found = []
        for start, size in ((self.tag(DT_RELA), self.tag(DT_RELASZ)), (self.tag(DT_JMPREL), self.tag(DT_PLTRELSZ))):
            raw = self.read(start, size) if size else b""
            found += [Relocation(o, i & 0xFFFFFFFF, i >> 32, a) for o, i, a in _RELA.iter_unpack(raw[:size // 24 * 24])]
        return found

    @cached_property
    def relocated(self) -> list[int]:
        """Where relocations write to, in order."""
        return sorted(r.offset for r in self.relocations)

    @cached_property
    def relocation_at(self) -> dict[int, Relocation]:
        return {r.offset: r for r in self.relocations}

    @cached_property
    def relative_words(self) -> set[int]:
        """Words to which the load bias is added by the packed table (gABI, DT_RELR); they hold their addends."""
        found: set[int] = set()
        raw = self.read(self.tag(DT_RELR), self.tag(DT_RELRSZ)) if self.tag(DT_RELRSZ) else b""
        at = 0
        for entry, in struct.iter_unpack("<Q", raw[:len(raw) // 8 * 8]):
            if entry & 1:
                found |= {at + 8 * i for i in range(63) if entry >> i + 1 & 1}
                at += 8 * 63
            else:
                found.add(entry)
                at = entry + 8
            if len(found) > len(self.data) // 8:
                raise Unreadable(f"{self.where}: more words are relocated than it can hold")
        return found

    def dynamic_string(self, offset: int) -> str:
        raw = self._dynamic_strings
        if offset >= len(raw):
            raise Unreadable(f"{self.where}: name {offset:#x} lies outside the dynamic string table")
        end = raw.find(b"\0", offset, offset + _LONGEST_NAME)
        if end < 0:
            raise Unreadable(f"{self.where}: a name in the dynamic string table does not end")
        return raw[offset:end].decode("utf-8", "surrogateescape")

    @cached_property
    def _dynamic_strings(self) -> bytes:
        return self.read(self.tag(DT_STRTAB), self.tag(DT_STRSZ)) if self.tag(DT_STRSZ) else b""

    def dynamic_symbol(self, index: int) -> Import:
        """Raises Unreadable."""
        if index > len(self.data) // 24:
            raise Unreadable(f"{self.where}: there is no dynamic symbol {index}")
        raw = self.read(self.tag(DT_SYMTAB) + 24 * index, 24)
        name, info, other, section, value, size = _SYM.unpack(raw)
        symbol = Symbol(self.dynamic_string(name), value, size, info & 15, info >> 4, other & 3, section)
        wanted = 0
        if self.tag(DT_VERSYM):
            wanted = int.from_bytes(self.read(self.tag(DT_VERSYM) + 2 * index, 2), "little") & 0x7FFF
        version, file = self.versions_needed.get(wanted, ("", ""))
        if section == UNDEFINED and wanted > _VERSION_GLOBAL and not version:
            raise Unreadable(f"{self.where}: import {symbol.name} asks for version {wanted}, which has no name")
        return Import(symbol, version, file)

    @cached_property
    def versions_needed(self) -> dict[int, tuple[str, str]]:
        """Number in the version table -> (version, file it was linked from)."""
        found: dict[int, tuple[str, str]] = {}
        at, left = self.tag(DT_VERNEED), _MOST_VERSIONS
        for _ in range(min(self.tag(DT_VERNEEDNUM), _MOST_VERSIONS)):
            _, count, file, aux, following = struct.unpack("<HHIII", self.read(at, 16))
            version_at, left = at + aux, left - count
            if left < 0:
                raise Unreadable(f"{self.where}: more versions than {_MOST_VERSIONS}")
            for _ in range(count):
                _, _, number, name, step = struct.unpack("<IHHII", self.read(version_at, 16))
                found[number & 0x7FFF] = (self.dynamic_string(name), self.dynamic_string(file))
                version_at += step
                if not step:
                    break
            at += following
            if not following:
                break
        return found

    # ---- notes --------------------------------------------------------------------------------------------------

    def notes(self) -> list[tuple[bytes, int, int, bytes]]:
        """(owner, type, address of the content, content) of every note."""
        found = []
        segments = [s for s in self.segments if s.type == "PT_NOTE"]
        if sum(s.size for s in segments) > 2 * len(self.data):       # PT_GNU_PROPERTY's are in two
            raise Unreadable(f"{self.where}: its notes are larger than the file")
        for segment in segments:
            raw, align = self.read(segment.address, segment.size), 8 if segment.align == 8 else 4
            at = 0
            while at + _NOTE.size <= len(raw):
                owner_size, size, kind = _NOTE.unpack_from(raw, at)
                start = at + _NOTE.size
                content = start + owner_size + -(start + owner_size) % align
                if content + size > len(raw):
                    break
                found.append((raw[start:start + owner_size], kind, segment.address + content, raw[content:content + size]))
                at = content + size + -(content + size) % align
        return found

    @cached_property
    def build_id(self) -> str:
        return next((content.hex() for owner, kind, _, content in self.notes() if owner == b"GNU\0" and kind == 3), "")


class _Symbols:
    """A symbol table and its indices. Payloads that are compared with one another often have the same."""

    def __init__(self, symbols: list[Symbol]) -> None:
        self.symbols = symbols
        self.by_address: dict[int, list[Symbol]] = {}    # functions and objects that are defined, by their first byte
        self.by_name: dict[str, list[Symbol]] = {}
        for symbol in symbols:
            if symbol.section == UNDEFINED or not symbol.name:
                continue
            self.by_name.setdefault(symbol.name, []).append(symbol)
            if symbol.section != ABSOLUTE_INDEX and symbol.type in (FUNC, OBJECT, NOTYPE, IFUNC):
                self.by_address.setdefault(symbol.value, []).append(symbol)


@lru_cache(maxsize=16)
def _symbols(table: bytes, names: bytes) -> _Symbols:
    found: list[Symbol] = []
    for name, info, other, section, value, size in _SYM.iter_unpack(table[:len(table) // 24 * 24]):
        end = names.find(b"\0", name, name + _LONGEST_NAME)
        if end < 0 or name >= len(names) and name:
            raise Unreadable(f"symbol {len(found)} has no name")
        found.append(Symbol(names[name:end].decode("utf-8", "surrogateescape"), value, size, info & 15, info >> 4, other & 3,
                            section))
    return _Symbols(found)
