"""Object maps and images from data, for tests of what compares and plans: no ELF, no compiler.

::

    old = objmap("a.o", fn("f", "1", refs=["n.0~a.o"]), static("n.0", "a.o"))
    live = from_image(image(old))

Digests are any text, padded to the length of real ones. Addresses in an image are given out in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hotreload_tool.arch.x86_64 import HEAD_SIZE
from hotreload_tool.difference import Definition, prevailing
from hotreload_tool.live import ImageFacts, ImageSymbol, TlsSegment
from hotreload_tool.objectmap import DataEntry, FunctionEntry, ObjectMap, SpecialEntry

BUILD_ID = "ab" * 20
ARENA = (0x100000, 0x100000)


def digest(text: str) -> str:
    return text.encode().hex().ljust(32, "0")[:32]


def fn(name: str, content: str = "1", refs: Sequence[str] = (), **fields: Any) -> FunctionEntry:
    """`name` is unique: "f" is public, "f~a.o" file-local."""
    symbol, _, local = name.partition("~")
    fields.setdefault("binding", "local" if local else "global")
    fields.setdefault("size", 16)
    return FunctionEntry(name=name, symbol=symbol, digest=digest(content), refs=list(refs), **fields)


def var(name: str, content: str = "0", kind: str = "data", **fields: Any) -> DataEntry:
    symbol, _, local = name.partition("~")
    values = {"binding": "local" if local else "global", "size": 4, "align": 4, "extent": 64, "type": "int", **fields}
    return DataEntry(name=name, symbol=symbol, kind=kind, digest=digest(content), **values)


def static(symbol: str, obj: str, **fields: Any) -> DataEntry:
    """A C static local such as "n.0"."""
    return var(f"{symbol}~{obj}", static_local=symbol.rpartition(".")[0], kind=fields.pop("kind", "bss"), **fields)


def objmap(obj: str, *entries: FunctionEntry | DataEntry | SpecialEntry, **fields: Any) -> ObjectMap:
    fields.setdefault("typed", True)
    fields.setdefault("compiler", ["GCC: 12.2.0"])
    return ObjectMap(
        obj,
        functions=[e for e in entries if isinstance(e, FunctionEntry)],
        data=[e for e in entries if isinstance(e, DataEntry)],
        special=[e for e in entries if isinstance(e, SpecialEntry)],
        **fields,
    )


def image(
    *maps: ObjectMap, extra: Iterable[ImageSymbol] = (), without: Iterable[str] = (), heads: Iterable[str] = (), **fields: Any
) -> ImageFacts:
    """An image that was linked from `maps`. Symbols called `without` were left out by the linker; functions called `heads` are
    called at their own entries."""
    found: dict[str, list[Definition]] = {}
    for m in maps:
        for entry in (*m.functions, *m.data):
            found.setdefault(entry.name, []).append(Definition(m.object, entry))
    symbols: list[ImageSymbol] = []
    slots: dict[int, int] = {}
    for number, definitions in enumerate(found.values()):
        definition = prevailing(definitions)
        assert definition is not None
        symbols += _symbols(definition.entry, number, slots, definition.entry.name in set(heads))
    symbols = [s for s in symbols if s.name not in set(without)] + list(extra)
    fields.setdefault("build_id", BUILD_ID)
    fields.setdefault("kind", "pie")
    fields.setdefault("needed", ["libstdc++.so.6", "libc.so.6"])
    return ImageFacts(
        path="build/prog",
        machine=62,
        maps=list(maps),
        symbols=symbols,
        slots=slots,
        arena=ARENA,
        tls=TlsSegment(0x3000, 64, 16),
        **fields,
    )


def _symbols(entry: FunctionEntry | DataEntry, number: int, slots: dict[int, int],
             head: bool = False) -> list[ImageSymbol]:
    hidden = ("LOCAL", "HIDDEN")
    shown = hidden if entry.binding == "local" else ("WEAK" if entry.binding == "weak" else "GLOBAL", "DEFAULT")
    if isinstance(entry, DataEntry):
        if entry.kind in ("tdata", "tbss"):
            return [ImageSymbol(entry.name, number * 8, entry.size, "TLS", *shown, ".tbss")]
        return [ImageSymbol(entry.name, 0x8000 + number * 64, entry.size, "OBJECT", *shown, ".data")]
    stub, slot, body = 0x1000 + number * 64, 0x6000 + number * 8, 0x2000 + number * 64
    slots[slot] = body
    if head:
        return [ImageSymbol(entry.name, body - HEAD_SIZE, entry.size, "FUNC", *shown, ".text"),
                ImageSymbol(entry.name + ".hr_slot", slot, 8, "OBJECT", *hidden, ".data.rel.ro")]
    code = (entry.symbol, ("LOCAL", "DEFAULT")) if entry.binding == "local" else (entry.name + ".hr_body", hidden)
    return [
        ImageSymbol(entry.name, stub, 11, "FUNC", *shown, ".text"),
        ImageSymbol(entry.name + ".hr_slot", slot, 8, "OBJECT", *hidden, ".data.rel.ro"),
        ImageSymbol(code[0], body, entry.size, "FUNC", *code[1], ".text"),
    ]
