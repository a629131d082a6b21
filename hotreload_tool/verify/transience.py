"""Whether a payload that says that it may be unmapped (`transient`) is one: shown from its bytes, whatever its builder went by.

Once no slot leads into it the agent looks for return addresses and program counters, and then takes its pages away. So
nothing else of it may ever get into a register or into memory: no address that code makes or that a relocation writes. And
it may hold nothing that has to outlive its code.
"""
from __future__ import annotations

import re
from collections.abc import Iterator

from .. import abi, arch
from . import tables
from .linked import PF_W, PF_X, SHF_EXECINSTR, SHF_WRITE, Linked
from .tables import Payload

_PAGE = arch.NATIVE.PAGE
_LEA = re.compile(rb"(?=\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d](....))", re.DOTALL)      # lea disp32(%rip), behind any prefixes
_LEA_SIZE = 6
_ENTRY = 4                # bytes, of a jump table in position-independent code


def is_marked(payload: Payload) -> bool:
    return bool(payload.header.flags & abi.PayloadFlags.TRANSIENT)


def problems(payload: Payload) -> Iterator[str]:
    if not is_marked(payload):
        return
    if payload.file.type == "ET_EXEC":
        yield "any number of its code may be an address, since it is not position-independent"
    yield from _state(payload)
    yield from _written(payload)
    yield from _made(payload)


def _state(payload: Payload) -> Iterator[str]:
    """What has to last: variables, and what a later start of a thread runs or reads."""
    sealed = max((-(-s.end // _PAGE) * _PAGE for s in payload.file.segments if s.type == "PT_GNU_RELRO"), default=0)
    for load in payload.file.loads:
        if load.flags & PF_W and load.end > sealed:
            yield f"it has variables at {max(load.address, sealed):#x}, {load.end - max(load.address, sealed)} bytes"
    yield from (f"it brings the function {name}, whose stub is its address" for name in sorted(payload.own_slots.values()))
    if payload.tables["init_array"][1]:
        yield "it brings code that initialises objects"
    if any(u.flags & abi.UpdateFlags.THREADS for u in payload.updates):
        yield "every new thread takes initial values from it"


def _written(payload: Payload) -> Iterator[str]:
    """Addresses of it that relocations write, but for those that only the agent reads."""
    own = payload.pointer_words
    for r in payload.file.relocations:
        if r.type == tables.R_RELATIVE and r.offset not in own and payload.start <= r.addend < payload.end:
            yield f"the word at {r.offset:#x} holds its address {r.addend:#x}"
        elif r.symbol and payload.file.dynamic_symbol(r.symbol).symbol.defined:
            yield f"the word at {r.offset:#x} holds the address of something of its own"


def _made(payload: Payload) -> Iterator[str]:
    """Addresses of it that its code makes, but for those of jump tables. Bytes count wherever an instruction could begin."""
    made = [(at, to) for load in payload.file.loads if load.flags & PF_X
            for at, to in _addresses(payload.file.read(load.address, load.size), load.address)
            if payload.start <= to < payload.end]
    places = sorted({to for _, to in made})
    for at, to in made:
        if not _is_jump_table(payload.file, to, next((p for p in places if p > to), payload.end)):
            yield f"the code at {at:#x} makes its address {to:#x}"


def _addresses(code: bytes, start: int) -> Iterator[tuple[int, int]]:
    """(where the instruction may be, the address it makes)."""
    for match in _LEA.finditer(code):
        at = start + match.start()
        yield at, at + _LEA_SIZE + int.from_bytes(match[1], "little", signed=True)


def _is_jump_table(file: Linked, start: int, next_one: int) -> bool:
    """Whether up to the next table, or the end of the section, there are distances from `start` to code, and zeros behind
    them: what a `switch` adds to the address of the table and jumps to."""
    section = file.section_of(start)
    if section is None or section.flags & (SHF_WRITE | SHF_EXECINSTR):
        return False
    raw = file.read(start, min(next_one, section.end) - start).rstrip(b"\0")
    raw += bytes(-len(raw) % _ENTRY)
    return bool(raw) and all(file.executable(start + int.from_bytes(raw[at:at + _ENTRY], "little", signed=True))
                             for at in range(0, len(raw), _ENTRY))
