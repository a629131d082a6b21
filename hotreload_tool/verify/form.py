"""Whether a payload has the one form in which the builder's linker writes it: nothing in it is hidden, and nothing said twice.

What a reader skips another may use: a second table of relocations, bits without a meaning, bytes between sections. So
each byte of the file has to belong to a header, to a section, or to padding, and where the file says something in two
places (program headers, section headers, dynamic section), both say the same. The time of all later checks is bounded by this.
"""
from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from .. import abi, arch
from .linked import (
    ABSOLUTE_INDEX,
    DT_JMPREL,
    DT_NEEDED,
    DT_PLTRELSZ,
    DT_RELA,
    DT_RELASZ,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMTAB,
    DT_VERNEED,
    DT_VERNEEDNUM,
    DT_VERSYM,
    FUNC,
    OBJECT,
    PF_W,
    PF_X,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    TLS,
    UNDEFINED,
    Linked,
)
from .tables import R_64, R_GLOB_DAT, R_JUMP_SLOT, R_NONE, R_RELATIVE, Payload

# gABI, chapters 4 and 5.
_EHDR, _PHDR, _SHDR = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ"), struct.Struct("<IIQQQQIIQQ")
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK, _PT_GNU_RELRO = 1, 2, 0x6474E551, 0x6474E552
_TYPES = (_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK, _PT_GNU_RELRO)
_NOBITS, _SYMTAB, _RELA, _DYNAMIC, _DYNSYM = 8, 2, 4, 6, 11
_VERNEED, _VERSYM = 0x6FFFFFFE, 0x6FFFFFFF
_PAGE = arch.NATIVE.PAGE


class Row(NamedTuple):
    """A section header; `name` is an offset."""
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int

    @property
    def end(self) -> int:
        return self.address + self.size


class Header(NamedTuple):
    """A program header."""
    type: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    size: int
    align: int

    @property
    def end(self) -> int:
        return self.address + self.size


def problems(payload: Payload) -> Iterator[str]:
    """Everything about the form; later parts rely on earlier ones, so they are left out if those have problems."""
    file = payload.file
    for part in (_of_header, _of_segments, _of_sections, _of_bytes, _of_dynamic, _of_symbols):
        found = list(part(file))
        yield from found
        if found:
            return
    yield from _of_relocations(payload)


# ---- headers ----------------------------------------------------------------------------------------------------


def _of_header(file: Linked) -> Iterator[str]:
    ident, _, _, version, _, first, sections, flags, size, entry, count, section_size, section_count, names = _EHDR.unpack_from(
        file.data)
    if ident[:7] != b"\x7fELF\2\1\1" or ident[7] not in (0, 3) or any(ident[8:]) or version != 1 or flags:      # System V, GNU
        yield "its ELF header has bits that no linker sets"
    if (first, size, entry, section_size) != (_EHDR.size, _EHDR.size, _PHDR.size, _SHDR.size) or not count:
        yield "its program headers are not behind its ELF header"
    if sections % 8 or not section_count or names >= section_count or sections + section_count * _SHDR.size > len(file.data):
        yield "its section headers are not in the file"


@lru_cache(maxsize=4)
def _headers(file: Linked) -> list[Header]:
    count, = struct.unpack_from("<H", file.data, 56)
    return [Header(*_PHDR.unpack_from(file.data, _EHDR.size + i * _PHDR.size)) for i in range(count)]


@lru_cache(maxsize=4)
def _rows(file: Linked) -> list[Row]:
    start, = struct.unpack_from("<Q", file.data, 40)
    count, = struct.unpack_from("<H", file.data, 60)
    return [Row(*_SHDR.unpack_from(file.data, start + i * _SHDR.size)) for i in range(count)]


def _of_segments(file: Linked) -> Iterator[str]:
    headers = _headers(file)
    loads = [h for h in headers if h.type == _PT_LOAD and h.size]       # of code, where there is none, linkers leave an empty one
    for header in headers:
        where = f"the program header of {header.address:#x}"
        if header.type not in _TYPES:
            yield f"{where} has type {header.type:#x}"
        elif header.type != _PT_LOAD and sum(h.type == header.type for h in headers) > 1:
            yield f"{where} is of type {header.type:#x}, and so is another one"
        if header.flags & ~7 or header.physical != header.address or header.align & header.align - 1:
            yield f"{where} has bits that no linker sets"
        if header.type == _PT_LOAD and (header.align != _PAGE or header.offset + header.file_size > len(file.data)):
            yield f"{where} is of a segment that is not one of pages of the file"
        if header.type == _PT_GNU_STACK and any(header[2:7]):
            yield f"{where} speaks of a stack that lies in the file"
        if header.type in (_PT_DYNAMIC, _PT_GNU_RELRO) and header.size and not any(
                _same_place(header.address, header.offset, header.size * (header.type == _PT_DYNAMIC), load) for load in loads):
            yield f"{where} is not where the segment is that holds it"
        if header.type != _PT_LOAD and header.size != header.file_size or header.type == _PT_DYNAMIC and (
                header.address % 8 or header.size % 16):
            yield f"{where} is of an odd size"
    for before, load in zip(loads, loads[1:]):
        if load.address < before.end or load.offset < before.offset + before.file_size:
            yield f"the segment at {load.address:#x} does not come behind the one before it"


def _same_place(address: int, offset: int, size: int, load: Header) -> bool:
    """Whether these bytes of the file are in the segment, at the address that goes with their offset."""
    return (load.address <= address and address + size <= load.address + load.file_size
            and address - load.address == offset - load.offset)


# ---- sections ---------------------------------------------------------------------------------------------------


def _of_sections(file: Linked) -> Iterator[str]:
    rows = _rows(file)
    if any(rows[0]):
        yield "its first section header is not empty"
    loads = [h for h in _headers(file) if h.type == _PT_LOAD and h.size]
    for row, section in zip(rows[1:], file.sections[1:]):
        name = section.name
        if not name or not name.isprintable():
            yield f"the section at byte {row.offset:#x} has no name"
        if row.align & row.align - 1 or row.align and row.address % row.align:
            yield f"section {name} is not aligned as it says"
        if row.link >= len(rows):
            yield f"section {name} is linked to section {row.link} of {len(rows)}"
        if not row.flags & SHF_ALLOC and row.address:
            yield f"section {name} is not loaded, and has an address"
        if row.flags & SHF_ALLOC and row.size:
            yield from _of_loaded(name, row, loads)
    placed = sorted((r for r in rows if r.flags & SHF_ALLOC and r.size), key=lambda r: r.address)
    yield from (f"sections lie over each other at {two.address:#x}" for one, two in zip(placed, placed[1:])
                if two.address < one.end)
    for load in loads:
        inside = [r for r in placed if load.address <= r.address and r.end <= load.end]
        if max((r.end for r in inside), default=0) != load.end:
            yield f"the segment at {load.address:#x} ends at {load.end:#x}, and no section of it does"
        if max((r.end for r in inside if r.type != _NOBITS), default=load.address) != load.address + load.file_size:
            yield f"the content of the segment at {load.address:#x} does not end with a section of it"


def _of_loaded(name: str, row: Row, loads: list[Header]) -> Iterator[str]:
    home = next((h for h in loads if h.address <= row.address and row.end <= h.end), None)
    if home is None:
        yield f"section {name} at {row.address:#x} is in no segment"
    elif row.type != _NOBITS and not _same_place(row.address, row.offset, row.size, home):
        yield f"section {name} is not where its segment has it"
    elif bool(row.flags & SHF_WRITE) != bool(home.flags & PF_W) or bool(row.flags & SHF_EXECINSTR) != bool(home.flags & PF_X):
        yield f"section {name} and its segment do not agree on what it is for"


# ---- bytes ------------------------------------------------------------------------------------------------------


def _of_bytes(file: Linked) -> Iterator[str]:
    """What belongs to nothing is zero. A signature may follow the section headers (docs/formats.md)."""
    start, = struct.unpack_from("<Q", file.data, 40)
    table_end = start + len(_rows(file)) * _SHDR.size
    ranges = [(0, _EHDR.size + len(_headers(file)) * _PHDR.size), (start, table_end)]
    ranges += [(r.offset, r.offset + r.size) for r in _rows(file)[1:] if r.type != _NOBITS and r.size]
    at = 0
    for low, high in sorted(ranges):
        if low < at:
            yield f"two things lie at byte {low:#x} of the file"
        elif any(file.data[at:low]):
            yield f"bytes {at:#x} to {low:#x} of the file belong to nothing, and are not zero"
        at = max(at, high)
    rest = file.data[at:]
    if at != table_end or rest and (len(rest) != abi.SIGNATURE.size or not rest.startswith(abi.SIGNATURE_MAGIC)):
        yield f"the file goes on at byte {at:#x}, where it should end"


# ---- dynamic section --------------------------------------------------------------------------------------------


def _of_dynamic(file: Linked) -> Iterator[str]:
    tags = [tag for tag, _ in file.dynamic]
    yield from (f"the dynamic section has tag {tag:#x} twice" for tag in sorted(set(tags) - {DT_NEEDED}) if tags.count(tag) > 1)
    where = next((h for h in _headers(file) if h.type == _PT_DYNAMIC), None)
    if where is None:
        return
    if where.size and any(file.read(where.address, where.size)[16 * len(tags):]):
        yield "something follows the end of the dynamic section"
    if not where.size and (where.address, where.offset) != (0, 0):
        yield "it has no dynamic section, and a header says where that is"
    rows = [r for r in _rows(file) if r.flags & SHF_ALLOC]
    if [(r.address, r.size) for r in rows if r.type == _DYNAMIC] != [(where.address, where.size)][:where.size]:
        yield "its dynamic section is not where its section header is"
    symbols = [r for r in rows if r.type == _DYNSYM]
    if len(symbols) > 1 or [r.address for r in symbols] != [file.tag(DT_SYMTAB)][:len(symbols)]:
        yield "its dynamic symbols are not where their section is"
    texts = [(_rows(file)[r.link].address, _rows(file)[r.link].size) for r in symbols]
    if texts and texts != [(file.tag(DT_STRTAB), file.tag(DT_STRSZ))]:
        yield "the names of its dynamic symbols are not where their section is"
    if (_places(rows, _VERSYM) or [0]) != [file.tag(DT_VERSYM)] or (_places(rows, _VERNEED) or [0]) != [file.tag(DT_VERNEED)] \
            or next((r.info for r in rows if r.type == _VERNEED), 0) != file.tag(DT_VERNEEDNUM):
        yield "the versions of its imports are not where their sections are"
    said = {(file.tag(DT_RELA), file.tag(DT_RELASZ)), (file.tag(DT_JMPREL), file.tag(DT_PLTRELSZ))}
    if {(r.address, r.size) for r in rows if r.type == _RELA and r.size} != {s for s in said if s[1]}:
        yield "its relocations are not where their sections are"


def _places(rows: list[Row], kind: int) -> list[int]:
    return [r.address for r in rows if r.type == kind and r.size]


# ---- relocations ------------------------------------------------------------------------------------------------


def _of_relocations(payload: Payload) -> Iterator[str]:
    file = payload.file
    used = sorted((r for r in file.relocations if any(r)), key=lambda r: r.offset)      # linkers leave empty ones over
    yield from (f"two relocations write to {two.offset:#x}" for one, two in zip(used, used[1:]) if two.offset < one.offset + 8)
    for r in used:
        named, has_addend = r.type in (R_64, R_GLOB_DAT, R_JUMP_SLOT), r.type in (R_64, R_RELATIVE)
        if r.type == R_NONE or bool(r.symbol) != named or r.addend and not has_addend or r.type == R_RELATIVE and r.addend < 0:
            yield f"the relocation at {r.offset:#x} has bits that no linker sets"
        elif named:
            symbol = file.dynamic_symbol(r.symbol).symbol
            if symbol.section != UNDEFINED:       # the linker writes an address, and nobody else looks at what this one is
                yield f"the relocation at {r.offset:#x} names {symbol.name}, which the payload itself defines"
            elif symbol.binding not in (1, 2) or symbol.visibility:       # global, weak
                yield f"import {symbol.name} has bits that no linker sets"
    pointers = payload.pointer_words
    for start, size in payload.spans.values():
        yield from (f"the relocation at {r.offset:#x} makes a number of a table" for r in used
                    if start - 8 < r.offset < start + size and r.offset not in pointers)


# ---- symbols -------------------------------------------------------------------------------------------


def _of_symbols(file: Linked) -> Iterator[str]:
    """Other checks look at what symbols name; each of them lies in its section."""
    rows = _rows(file)
    if sum(r.type == _SYMTAB for r in rows) != 1:
        yield "it has no symbols, or several tables of them"
    for symbol in file.symbols:
        if not symbol.size or symbol.section == UNDEFINED or symbol.type == TLS:
            continue                      # what lives in the process has its address there, whatever the section
        if symbol.section == ABSOLUTE_INDEX:
            yield f"symbol {symbol.name} is in no section, and has a size"
            continue
        row = rows[symbol.section] if symbol.section < len(rows) else None
        if row is None or symbol.type in (FUNC, OBJECT) and not row.address <= symbol.value <= row.end - symbol.size:
            yield f"symbol {symbol.name} at {symbol.value:#x}, {symbol.size} bytes, is not inside its section"
        elif symbol.type == FUNC and not row.flags & SHF_EXECINSTR:
            yield f"function {symbol.name} at {symbol.value:#x} is no code"
