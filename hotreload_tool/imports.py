"""Stand-ins for shared libraries: of each, only the symbols that a payload imports.

Reading the C library takes the linker longer than all else it does for a payload. A stand-in is the library's own symbol
and version tables with the other symbols left out, so that the linker chooses the same symbols, versions and library
names. What a stand-in cannot be made of is linked with as it is.
"""
from __future__ import annotations

import functools
import os
import struct
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .elf import (
    EM_X86_64,
    ET_DYN,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_TLS,
    SHF_WRITE,
    SHN_LORESERVE,
    SHT_NOBITS,
    SHT_STRTAB,
    STT_TLS,
)

# System V gABI, chapters 4 and 5; the tables of versions are of LSB Core 5.0, chapter 10.7.
_EHDR, _SHDR, _SYM = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ")
_DYNAMIC, _DYNSYM = 6, 11
_HASH, _VERDEF, _VERSYM = 0x6FFFFFF6, 0x6FFFFFFD, 0x6FFFFFFF
_DT_SONAME = 14
_CODE, _DATA, _THREAD = 6, 7, 8         # sections of a stand-in that symbols lie in; nothing else is known of these


class _Library(NamedTuple):
    """The tables of one library that a stand-in is made of."""
    header: bytes
    symbols: bytes
    strings: bytes
    versions: bytes
    definitions: bytes
    n_definitions: int
    soname: int                          # offset in `strings`
    executable: frozenset[int]           # sections with code
    hash: bytes                          # DT_GNU_HASH

    def symbol(self, index: int) -> tuple[int, ...]:
        return _SYM.unpack_from(self.symbols, index * _SYM.size)

    def defined(self, name: bytes) -> Iterator[int]:
        """Indices of the symbols that are defined with a name, one for each version: found as ld.so finds them
        (binutils, elflink.c: nbuckets, first index, size and shift of a filter; the filter, buckets, chains)."""
        n_buckets, first, n_filter, _ = struct.unpack_from("<IIII", self.hash)
        buckets = 16 + 8 * n_filter
        chains = buckets + 4 * n_buckets
        wanted = functools.reduce(lambda h, c: (33 * h + c) & 0xFFFFFFFF, name, 5381)
        index = self._word(buckets + wanted % n_buckets * 4)
        while index >= first:
            found = self._word(chains + 4 * (index - first))
            if (found ^ wanted) <= 1 and self._is_defined(index, name):
                yield index
            if found & 1:
                return
            index += 1

    def _word(self, at: int) -> int:
        return int(struct.unpack_from("<I", self.hash, at)[0])

    def _is_defined(self, index: int, name: bytes) -> bool:
        symbol = self.symbol(index)
        return symbol[3] != 0 and self.strings.startswith(name + b"\0", symbol[0])


def stand_ins(libraries: Sequence[str], wanted: Collection[str], folder: Path) -> list[str]:
    """What to link with in place of `libraries`: stand-ins made in `folder`, with those symbols of `wanted` that they
    define. Libraries that define none are left out."""
    found = []
    for number, path in enumerate(libraries):
        try:
            stamp = os.stat(path)
            library = _read(os.path.realpath(path), stamp.st_mtime_ns, stamp.st_size)
            kept = _wanted(library, wanted)
        except (OSError, struct.error, ArithmeticError, ValueError, IndexError):
            found.append(path)
            continue
        if kept:
            made = folder / f"library-{number}.so"
            made.write_bytes(_written(library, kept))
            found.append(str(made))
    return found


@functools.lru_cache(maxsize=64)
def _read(path: str, modified: int, size: int) -> _Library:
    """Raises ValueError for a file of another form."""
    with open(path, "rb", buffering=0) as file:
        return _tables(file.fileno(), size, path)


def _tables(file: int, size: int, path: str) -> _Library:
    """Reads of the file, which has `size` bytes, only what is needed."""
    start = os.pread(file, _EHDR.size, 0)
    header = _EHDR.unpack(start)
    if start[:6] != b"\x7fELF\2\1" or header[1:3] != (ET_DYN, EM_X86_64):
        raise ValueError(path)
    sections = list(_SHDR.iter_unpack(os.pread(file, header[12] * _SHDR.size, header[6])))
    by_type = {s[1]: s for s in sections if s[1] in (_DYNSYM, _DYNAMIC, _HASH, _VERDEF, _VERSYM)}
    if len(by_type) != 5:
        raise ValueError(path)

    def content(section: Sequence[int]) -> bytes:
        if section[5] > size:
            raise ValueError(path)
        return os.pread(file, section[5], section[4])

    symbols = by_type[_DYNSYM]
    soname = [value for tag, value in struct.iter_unpack("<QQ", content(by_type[_DYNAMIC])) if tag == _DT_SONAME]
    if len({by_type[kind][6] for kind in (_DYNSYM, _DYNAMIC, _VERDEF)}) != 1 or len(soname) != 1:
        raise ValueError(path)
    return _Library(start, content(symbols), content(sections[symbols[6]]), content(by_type[_VERSYM]),
                    content(by_type[_VERDEF]), by_type[_VERDEF][7], soname[0],
                    frozenset(i for i, s in enumerate(sections) if s[2] & SHF_EXECINSTR), content(by_type[_HASH]))


def _wanted(library: _Library, wanted: Collection[str]) -> list[int]:
    """Indices of the defined symbols with these names, all their versions."""
    names = (name.encode("utf-8", "surrogateescape") for name in wanted)
    return sorted(i for name in names for i in library.defined(name))


def _written(library: _Library, kept: Sequence[int]) -> bytes:
    """The stand-in: an ELF file without segments, of which linkers read the sections."""
    symbols = b"".join([_SYM.pack(0, 0, 0, 0, 0, 0), *(_placed(library, library.symbol(i)) for i in kept)])
    versions = b"\0\0" + b"".join(library.versions[2 * i:2 * i + 2] for i in kept)
    names = b"\0.dynsym\0.dynstr\0.gnu.version\0.gnu.version_d\0.dynamic\0.text\0.data\0.tbss\0.shstrtab\0"
    dynamic = struct.pack("<QQQQ", _DT_SONAME, library.soname, 0, 0)
    # name, type, flags, content, link, info, entry size; in the order that _CODE, _DATA and _THREAD count in
    tables = [(".dynsym", _DYNSYM, SHF_ALLOC, symbols, 2, 1, _SYM.size),
              (".dynstr", SHT_STRTAB, SHF_ALLOC, library.strings, 0, 0, 0),
              (".gnu.version", _VERSYM, SHF_ALLOC, versions, 1, 0, 2),
              (".gnu.version_d", _VERDEF, SHF_ALLOC, library.definitions, 2, library.n_definitions, 0),
              (".dynamic", _DYNAMIC, SHF_ALLOC | SHF_WRITE, dynamic, 2, 0, 16),
              (".text", SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, b"", 0, 0, 0),
              (".data", SHT_NOBITS, SHF_ALLOC | SHF_WRITE, b"", 0, 0, 0),
              (".tbss", SHT_NOBITS, SHF_ALLOC | SHF_WRITE | SHF_TLS, b"", 0, 0, 0),
              (".shstrtab", SHT_STRTAB, 0, names, 0, 0, 0)]
    body, headers = bytearray(library.header), [bytes(_SHDR.size)]
    for name, kind, flags, content, link, info, entry in tables:
        body += bytes(-len(body) % 8)
        size = 1 << 46 if kind == SHT_NOBITS else len(content)
        headers.append(_SHDR.pack(names.index(name.encode() + b"\0"), kind, flags, 0, len(body), size, link, info, 8, entry))
        body += content
    body += bytes(-len(body) % 8)
    start = len(body)
    body += b"".join(headers)
    head = list(_EHDR.unpack_from(library.header))
    head[5], head[6], head[10], head[12], head[13] = 0, start, 0, len(headers), len(headers) - 1
    body[:_EHDR.size] = _EHDR.pack(*head)
    return bytes(body)


def _placed(library: _Library, symbol: Sequence[int]) -> bytes:
    name, info, other, section, value, size = symbol
    if section < SHN_LORESERVE:
        section = _THREAD if info & 15 == STT_TLS else _CODE if section in library.executable else _DATA
    return _SYM.pack(name, info, other, section, value, size)
