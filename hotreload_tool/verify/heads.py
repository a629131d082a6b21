"""Functions that are called at their own entry: a head of two bytes there, and before the entry the stub that it can jump to.

To the checks such a function looks like any with a stub: its symbol is split into the head, which stands for the stub, and
the code behind it, called as a body is. Bytes: Intel SDM, volume 2.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import names

if TYPE_CHECKING:
    from .linked import Linked, Symbol

_STUB = b"\x3e\xff\x25"              # notrack jmp *disp32(%rip), which ends at the entry
_STUB_SIZE = 7
_MARKS = (b"", b"\xf3\x0f\x1e\xfa")  # endbr64
IDLE = b"\x66\x90"                   # xchg %ax,%ax
SIZE = len(IDLE)


def place(file: Linked, entry: int) -> int:
    """Where the two bytes of the head of a function at `entry` lie; 0: it has none."""
    load = file.load_of(entry)
    if load is None or entry - _STUB_SIZE < load.address or not file.read(entry - _STUB_SIZE, 3) == _STUB:
        return 0
    code = file.read(entry, min(8, load.end - entry))
    for mark in _MARKS:
        if code.startswith(mark) and code[len(mark):len(mark) + SIZE] in (IDLE, armed(entry, entry + len(mark))):
            return entry + len(mark)
    return 0


def armed(entry: int, at: int) -> bytes:
    """The head at `at` when it is a jump to the stub."""
    return bytes([0xeb, entry - _STUB_SIZE - at - SIZE & 0xff])


def slot(file: Linked, entry: int) -> int:
    """The slot that the stub before `entry` jumps through; 0: there is no head."""
    return entry + int.from_bytes(file.read(entry - 4, 4), "little", signed=True) if place(file, entry) else 0


def split(file: Linked, symbols: Sequence[Symbol], function: int) -> list[Symbol]:
    """The symbols of a file as if heads were stubs. `function`: the type of those that name code."""
    called = {s.value: s.name.removesuffix(names.SLOT_SUFFIX) for s in symbols
              if s.defined and s.name.endswith(names.SLOT_SUFFIX)}
    found, bodies = [], {s.value for s in symbols if s.type == function and s.defined}
    for symbol in symbols:
        at = place(file, symbol.value) if called and symbol.type == function and symbol.defined else 0
        name = called.get(slot(file, symbol.value)) if at else None
        lead = at + SIZE - symbol.value
        if name is None or symbol.size < lead:
            found.append(symbol)
            continue
        body = symbol._replace(value=symbol.value + lead, size=symbol.size - lead)
        if symbol.name.partition("@")[0] != name:
            found.append(body)
            continue
        found.append(symbol._replace(size=lead))
        if body.value not in bodies:
            found.append(body._replace(name=name + names.BODY_SUFFIX, binding=0))
    return found
