"""The object map: what one instrumented object holds, by name, size and digest.

It travels in the non-allocated section ``.hotreload.map`` of the object; the linker
concatenates the maps of all objects, so that an image describes itself.
Format: docs/formats.md, "Object map".
"""
from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

FORMAT = 1
_MAGIC = b"HRMAP\0\0\1"
_HEADER = struct.Struct("<8sQQ")     # magic, stored length, raw length (bytes)
_ALIGN = 8                            # sh_addralign of the section: linkers pad with zeros
MAX_RAW = 1 << 28                     # bound on one map; a bomb is refused before it is inflated


class MapError(ValueError):
    """The bytes are not a sequence of object maps. The message says where and why."""


@dataclass
class FunctionEntry:
    """One function with a stub of its own."""
    name: str                 # image-wide unique name, also the stub's symbol
    symbol: str               # the name in the source object (C name or mangled C++ name)
    binding: str              # "local" | "global" | "weak" as the compiler had it
    size: int                 # bytes of the body
    digest: str               # 32 hex digits over content, see docs/formats.md
    refs: list[str] = field(default_factory=list)  # names it reaches, also through anonymous parts
    comdat: str | None = None       # signature of its COMDAT group
    signature: str | None = None    # with debug info: "int (int, char *)", of C++ as DebugTypes.signature has it
    section: str = ".text"
    direct: list[str] = field(default_factory=list)  # functions reached by short jumps without relocation


@dataclass
class DataEntry:
    """One named object (variable, constant, vtable, thread-local)."""
    name: str
    symbol: str
    binding: str
    kind: str                 # "data" | "bss" | "rodata" | "relro" | "tdata" | "tbss"
    size: int                 # bytes
    align: int
    extent: int               # bytes it may grow to: size and the padding after it
    digest: str               # over initial content and relocations; zeros for bss and tbss
    refs: list[str] = field(default_factory=list)
    comdat: str | None = None
    static_local: str | None = None  # "n" where the compiler numbered a C static local "n.0"
    type: str | None = None          # printed type, where debug info tells
    section: str = ".data"


@dataclass
class SpecialEntry:
    """An allocated section that is neither functions nor named objects (arrays made by the linker …)."""
    section: str
    size: int
    digest: str
    refs: list[str] = field(default_factory=list)   # of .init_array: the functions that run at start
    comdat: str | None = None                       # signature of its COMDAT group


@dataclass
class ObjectMap:
    object: str                                   # names.object_name of the build-relative path
    source: str | None = None                     # from the FILE symbol
    machine: str = "x86_64"
    stubs: str = "plt"
    compiler: list[str] = field(default_factory=list)   # strings of .comment
    typed: bool = False                           # it carries type information
    headers: str | None = None                    # digest of the included files, when the build tells
    functions: list[FunctionEntry] = field(default_factory=list)
    data: list[DataEntry] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)  # digest of name and layout (16 hex) -> printed name
    layouts: dict[str, str] = field(default_factory=dict)    # the same digest -> layout as text (layouts.py)
    virtuals: dict[str, str] = field(default_factory=dict)   # class -> its own virtual functions, lines "SLOT FUNCTION"
    imports: list[str] = field(default_factory=list)     # undefined symbols
    special: list[SpecialEntry] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        entries = {key: [dict(vars(e)) for e in getattr(self, key)] for key in ("functions", "data", "special")}
        return {"format": FORMAT, **vars(self), **entries}      # dataclasses.asdict copies deeply: ten times slower

    @classmethod
    def from_json(cls, doc: dict[str, Any]) -> "ObjectMap":
        if not isinstance(doc, dict) or doc.get("format") != FORMAT:
            raise MapError(f"object map of format {doc.get('format') if isinstance(doc, dict) else doc!r}; "
                           f"this version reads format {FORMAT}")
        fields = {k: v for k, v in doc.items() if k != "format"}
        try:
            fields["functions"] = [FunctionEntry(**f) for f in fields["functions"]]
            fields["data"] = [DataEntry(**d) for d in fields["data"]]
            fields["special"] = [SpecialEntry(**s) for s in fields["special"]]
            return cls(**fields)
        except (KeyError, TypeError) as e:
            raise MapError(f"object map lacks or does not know a field: {e}") from e

    def pack(self) -> bytes:
        """The section's bytes, padded to the section's alignment."""
        raw = json.dumps(self.to_json(), separators=(",", ":"), sort_keys=True).encode()
        stored = zlib.compress(raw, 1)
        blob = _HEADER.pack(_MAGIC, len(stored), len(raw)) + stored
        return blob + b"\0" * (-len(blob) % _ALIGN)


def unpack_all(section: bytes) -> Iterator[ObjectMap]:
    """Every map of a section's bytes, in link order. Raises MapError."""
    at = 0
    while at < len(section):
        if at + _HEADER.size > len(section):
            if any(section[at:]):
                raise MapError(f"truncated object map at byte {at}")
            return
        magic, stored, raw_size = _HEADER.unpack_from(section, at)
        if magic != _MAGIC:
            if section[at:at + _ALIGN].strip(b"\0"):
                raise MapError(f"no object map at byte {at}: made by another version?")
            at += _ALIGN
            continue
        start = at + _HEADER.size
        if stored > len(section) - start or raw_size > MAX_RAW:
            raise MapError(f"object map at byte {at} claims {stored} bytes, {raw_size} unpacked")
        yield ObjectMap.from_json(_inflate(section[start:start + stored], raw_size, at))
        at = start + stored
        at += -at % _ALIGN


def _inflate(stored: bytes, raw_size: int, at: int) -> Any:
    try:
        engine = zlib.decompressobj()
        raw = engine.decompress(stored, raw_size + 1)      # 0 would be no bound at all
        if len(raw) != raw_size or not engine.eof or engine.unused_data:
            raise MapError(f"object map at byte {at} does not unpack to the {raw_size} bytes it claims")
        return json.loads(raw)
    except MapError:
        raise
    except (zlib.error, ValueError, RecursionError) as e:
        raise MapError(f"object map at byte {at} is damaged: {e}") from e
