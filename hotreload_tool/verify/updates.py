"""Data that takes new content in place: only where the named object is, and only instead of what it held."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import abi
from .linked import DEFAULT, Linked, Unreadable
from .space import Space
from .tables import R_64, R_GLOB_DAT, R_NONE, Payload, Update, loaded_word

_CONSTANT, _MERGE, _THREADS = int(abi.UpdateFlags.CONSTANT), int(abi.UpdateFlags.MERGE), int(abi.UpdateFlags.THREADS)


def problems(payload: Payload, entry: dict[str, Any], space: Space) -> Iterator[str]:
    named = {(d["address"], d["size"]): d["name"] for d in entry["data"]["updated"]}
    spans: list[tuple[int, int]] = []
    for number, update in enumerate(payload.updates):
        where = f"update {number}, {update.size} bytes at {update.address:#x},"
        spans.append((update.address, update.address + update.size))
        if update.flags == _THREADS:
            yield from (f"{where} {why}" for why in _initial_value(update, payload, entry, space))
            continue
        yield from (f"{where} {why}" for why in _one(update, payload, space))
        owner = [name for (start, size), name in named.items()
                 if start <= update.address and update.address + update.size <= start + size]
        if not owner:
            yield f"{where} belongs to no object that the manifest names"
        elif not _is_called(owner[0], update, space):
            yield f"{where} is said to be in {owner[0]}; the object there is {_called(update, space)}"
    spans.sort()
    yield from (f"two updates write to {start:#x}" for (_, end), (start, _) in zip(spans, spans[1:]) if start < end)


def _outside(update: Update, payload: Payload) -> list[str]:
    return [f"takes its {what} content from {at:#x}, outside of the payload"
            for what, at in (("old", update.old_content), ("new", update.new_content))
            if not update.size or payload.file.load_of(at, update.size) is None][:1]


def _initial_value(update: Update, payload: Payload, entry: dict[str, Any], space: Space) -> Iterator[str]:
    """Of a new thread-local: in the room that the runtime keeps in the program's TLS segment."""
    yield from (outside := _outside(update, payload))
    start, end = space.thread_room
    if entry["kind"] == "shared" or not start <= update.address < update.address + update.size <= end:
        yield "does not lie in the room that the program keeps for thread-locals"
    elif not any(space.tls_start + b["address"] == update.address for b in entry["data"]["bound"]):
        yield "belongs to no thread-local that the manifest names"
    elif not outside and not _same_before(update, payload, space):
        yield "expects what is not there"


def _one(update: Update, payload: Payload, space: Space) -> Iterator[str]:
    if update.flags not in (0, _CONSTANT, _MERGE):
        yield f"has flags {update.flags:#x}"
    outside = _outside(update, payload)
    if outside:
        yield outside[0]
        return
    if not space.is_sealed_or_data(update.address, update.size):
        yield "does not lie in data of the image or of an earlier generation"
        return
    if any(update.address < slot + 8 and slot < update.address + update.size for slot in space.slots):
        yield "lies over a slot"
    found = space.object_at(update.address)
    if found is None:
        yield "lies in no object"
        return
    symbol, end = found
    if update.address + update.size > end:
        yield f"goes past the end of {symbol.name} and its padding, {end:#x}"
    elif any(content_before(space, symbol.value + symbol.size, update.address + update.size - symbol.value - symbol.size)):
        yield f"goes past the end of {symbol.name} into what is no padding"
    elif update.flags in (_CONSTANT, _MERGE) and not _same_before(update, payload, space):
        yield f"expects what {symbol.name} does not hold"


def _same_before(update: Update, payload: Payload, space: Space) -> bool:
    """Whether the old content that the payload brings is what the object held. What an earlier generation wrote there counts."""
    held = content_before(space, update.address, update.size)
    brought = content(payload.file, update.old_content, update.size)
    return held == brought


def content(file: Linked, address: int, size: int) -> list[object]:
    """Bytes, with the pointers among them as (symbol, addend) or ("", address): what they hold once loaded. A number that no
    relocation makes is none, whatever its value: the image may be loaded anywhere."""
    found: list[object] = list(file.read(address, size))
    for at in range(size - 7):
        relocation = file.relocation_at.get(address + at)
        if relocation is not None and relocation.type in (R_64, R_GLOB_DAT):
            made = file.dynamic_symbol(relocation.symbol)
            pointer: tuple[str, int] = (made.symbol.name, relocation.addend)
            if made.symbol.defined and made.symbol.visibility != DEFAULT:      # else a library's own, looked up by name as well
                pointer = ("", made.symbol.value + relocation.addend)
        elif relocation is not None and relocation.type != R_NONE or address + at in file.relative_words:
            pointer = ("", loaded_word(file, address + at))
        else:
            continue
        found[at:at + 8] = [*pointer, *[None] * 6]
    return found


def content_before(space: Space, address: int, size: int) -> list[object]:
    """What lies there after all earlier generations wrote their updates; nothing if `size` is not positive."""
    if size <= 0:
        return []
    file = space.file_at(address, size)
    if file is None:
        raise Unreadable(f"nothing lies at {address:#x}")
    found = content(file, address, size)
    for payload in space.payloads:
        for update in payload.updates:
            low, high = max(update.address, address), min(update.address + update.size, address + size)
            if low < high:
                new = content(payload.file, update.new_content, update.size)
                found[low - address:high - address] = new[low - update.address:high - update.address]
    return found


def _called(update: Update, space: Space) -> str:
    found = space.object_at(update.address)
    return ", ".join(sorted({s.name for s in space.symbols_at(found[0].value)})) if found else "unknown"


def _is_called(name: str, update: Update, space: Space) -> bool:
    """Whether the object there has that name. A static local may have another number than it was built with."""
    found = space.object_at(update.address)
    return found is not None and any(same_name(name, s.name) for s in space.symbols_at(found[0].value))


def same_name(name: str, other: str) -> bool:
    return name == other or without_number(name) == without_number(other)


def is_numbered(name: str) -> bool:
    """Whether it may be a static local, whose number says nothing."""
    stem, dot, number = name.partition("~")[0].rpartition(".")
    return bool(dot) and number.isdecimal()


def without_number(name: str) -> tuple[str, str]:
    """(the name in the source, the object it is local to)."""
    base, separator, obj = name.partition("~")
    stem, dot, number = base.rpartition(".")
    return (stem, obj) if dot and number.isdecimal() and separator else (base, obj)
