"""Changed initialisers, element by element.

A variable whose live value still equals the old initialiser takes the new one; any other keeps its live value. In an
array each element is judged by itself, so that a table that the program has written into takes the other edits.
"""
from __future__ import annotations

import re
from pathlib import Path

from . import abi, elf
from .contents import Content
from .payload import Update
from .plan import Update as PlannedUpdate

_FLAGS = {"constant": abi.UpdateFlags.CONSTANT, "merge": abi.UpdateFlags.MERGE, "reset": abi.UpdateFlags(0)}
_ARRAY = re.compile(r"\[(\d+)\]")
_TEXT = re.compile(r"\b(?:char|char8_t|wchar_t|char16_t|char32_t)\b(?![^\[]*\*)")
_MOST = 4096          # elements that are judged one by one; a larger array is judged as a whole


def pieces(update: PlannedUpdate, old: Content, new_object: Path) -> list[Update]:
    """The updates that carry `update` out: one for each element whose initialiser differs, else one for all of it."""
    common = min(update.size, update.old_size)
    size = element_size(update.type, update.size) if update.mode == "merge" else common
    same = _unchanged(old, new_object, update.name, size, common) if size < common else set()
    found = [Update(update.name, update.address + at, size, _part(old, at, size), at, _FLAGS[update.mode])
             for at in range(0, common, size) if at not in same]
    if update.size > common:       # the padding it grows into belongs to nobody: it takes the initialiser
        tail = update.size - common
        found.append(Update(update.name, update.address + common, tail, Content(bytes(tail)), common, _FLAGS["reset"]))
    return found


def element_size(type: str | None, size: int) -> int:
    """Bytes that are judged together, for a variable of `size` bytes whose type prints as `type`.

    Text is one thing; an array of anything else is its elements; a struct, and what has no known type, is one thing."""
    counts = [int(n) for n in _ARRAY.findall(type or "")]
    if not counts or _TEXT.search(type or "") and len(counts) == 1:
        return size
    if _TEXT.search(type or ""):
        counts = counts[:-1]
    total = 1
    for count in counts:
        total *= max(count, 1)
    return size // total if total <= _MOST and size % total == 0 else size


def _part(content: Content, at: int, size: int) -> Content:
    inside = [p._replace(offset=p.offset - at) for p in content.pointers if at <= p.offset < at + size]
    return Content(content.data[at:at + size], inside)


def _unchanged(old: Content, new_object: Path, name: str, size: int, total: int) -> set[int]:
    """Offsets of the elements that hold the same plain bytes in both versions. Addresses are not compared here: an
    element with one is looked at in the process."""
    obj = elf.read(new_object)
    symbol = next(s for s in obj.symbols if s.name == name and s.defined)
    home = obj.sections[symbol.shndx]
    data = bytes(total) if home.type == elf.SHT_NOBITS else home.data[symbol.value:symbol.value + total]
    relocated = {(r.offset - symbol.value) // size for r in obj.relocations(home)} | {p.offset // size for p in old.pointers}
    return {at for at in range(0, total, size)
            if at // size not in relocated and data[at:at + size] == old.data[at:at + size]}
