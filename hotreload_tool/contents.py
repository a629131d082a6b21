"""What an object holds when its file is loaded: bytes, and the addresses that relocations put into them.

Needed where a patch relies on the old content of something: a constant that changes in place must hold what the old
source said, or it is not the constant we think it is.
"""
from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from . import arch, elf, mapped
from .elf import Elf, ElfError, Section

_SYM = struct.Struct("<IBBHQQ")
_SHT_DYNSYM = 11


class Pointer(NamedTuple):
    offset: int           # in the object
    symbol: str | None    # of another image; None: this image, at `addend` from its start
    addend: int


@dataclass
class Content:
    """Initial content; the 8 bytes at each pointer's offset are zeros here."""
    data: bytes
    pointers: list[Pointer] = field(default_factory=list)


def read(image: Elf, address: int, size: int) -> Content:
    """The content of `size` bytes at `address` of a linked file. Raises ElfError if no section holds them."""
    cpu = arch.for_machine(image.machine)
    home = next((s for s in image.sections if s.flags & elf.SHF_ALLOC and not s.flags & elf.SHF_TLS
                 and s.addr <= address and address + size <= s.addr + s.size), None)
    if cpu is None or home is None:
        raise ElfError(f"{image.where}: no section holds {size} bytes at {address:#x}")
    at = address - home.addr
    data = bytearray(bytes(size) if home.type == elf.SHT_NOBITS else mapped.piece(home, at, size))
    content = Content(b"")
    for section in image.sections:
        if section.type == elf.SHT_RELA and section.flags & elf.SHF_ALLOC:
            content.pointers += _pointers(image, section, address, size, cpu.R_RELATIVE)
    for pointer in content.pointers:
        data[pointer.offset:pointer.offset + 8] = bytes(8)
    content.data = bytes(data[:size])
    return content


def _pointers(image: Elf, relas: Section, address: int, size: int, relative: int) -> list[Pointer]:
    found = []
    for offset, info, addend in struct.iter_unpack("<QQq", relas.data):
        if address <= offset < address + size:
            local = info & 0xffffffff == relative
            found.append(Pointer(offset - address, None if local else _dynamic_name(image, relas, info >> 32), addend))
    return found


def _dynamic_name(image: Elf, relas: Section, index: int) -> str:
    symbols = image.sections[relas.link] if relas.link < len(image.sections) else None
    if symbols is None or symbols.type != _SHT_DYNSYM or (index + 1) * _SYM.size > symbols.size:
        raise ElfError(f"{image.where}: {relas.name}: a relocation names symbol {index}, which there is not")
    name, *_ = _SYM.unpack(mapped.piece(symbols, index * _SYM.size, _SYM.size))
    strings = image.sections[symbols.link]
    end = mapped.find(strings, b"\0", name)
    if end < 0:
        raise ElfError(f"{image.where}: {strings.name}: the name of symbol {index} does not end")
    return mapped.piece(strings, name, end - name).decode("utf-8", "surrogateescape")
