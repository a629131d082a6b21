"""Thousands of payloads from a few: one is linked, the others are its bytes with another generation and constant.

What is stamped: the header's generation, ids, the old code of each redirect, and a 32-bit constant wherever it stands.
"""
from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from runtimetools import Image, Payload, Recipe, make_payload

from hotreload_tool import abi

MARK = 0x5EED5EED                      # the constant in the source that each stamp replaces
_GENERATION, _ID, _PARENT = 16, 24, 56     # offsets in struct hr_payload


@dataclass
class Stamp:
    """One linked payload, to be stamped again and again."""
    payload: Payload
    names: list[str]                   # of the functions it changes, in the order of its redirects
    data: bytes
    header: int                        # offset of struct hr_payload in the file
    old_targets: list[int]             # offsets in the file of the addends that become them
    marks: list[int]                   # offsets in the file of the constant

    @classmethod
    def of(cls, payload: Payload, names: list[str]) -> Stamp:
        data = payload.path.read_bytes()
        with open(payload.path, "rb") as f:
            file = ELFFile(f)
            header = next(iter(file.address_offsets(payload.symbols["hr_payload"])))
            addends = {r["r_offset"]: section["sh_offset"] + i * section["sh_entsize"] + 16 for section in file.iter_sections()
                       if isinstance(section, RelocationSection) for i, r in enumerate(section.iter_relocations())}
        first = payload.symbols["redirects"]
        old = [addends[first + i * abi.REDIRECT.size + 8] for i in range(len(names))]
        return cls(payload, names, data, header, old, list(_places(data, struct.pack("<I", MARK))))

    def stamped(self, generation: int, parent: bytes, targets: Mapping[str, int]) -> tuple[bytes, bytes]:
        """(bytes, id) of a generation after `parent`, before which the functions are at `targets`; the constant is its
        number."""
        identity = hashlib.sha256(parent + generation.to_bytes(8, "little")).digest()
        raw = bytearray(self.data)
        struct.pack_into("<Q", raw, self.header + _GENERATION, generation)
        raw[self.header + _ID:self.header + _ID + abi.ID_SIZE] = identity
        raw[self.header + _PARENT:self.header + _PARENT + abi.ID_SIZE] = parent
        for at, name in zip(self.old_targets, self.names):
            struct.pack_into("<q", raw, at, targets[name])
        for at in self.marks:
            struct.pack_into("<I", raw, at, generation)
        return bytes(raw), identity


def _places(data: bytes, wanted: bytes) -> Iterator[int]:
    at = data.find(wanted)
    while at >= 0:
        yield at
        at = data.find(wanted, at + 1)


def stamps(folder: Path, image: Image, source: str, names: Mapping[str, str], n: int, **options: object) -> list[Stamp]:
    """`n` stamps side by side in the arena. They give old code the size that it has in a stamp, not in the image."""
    found: list[Stamp] = []
    sizes = make_payload(folder, Recipe(image, source, names, **options))  # type: ignore[arg-type]
    base = image.arena
    for _ in range(n):
        made = make_payload(folder, Recipe(image, source, names, base=base, previous=sizes, **options))  # type: ignore[arg-type]
        found.append(Stamp.of(made, list(names)))
        base = made.end
    return found


@dataclass
class Series:
    """Generation after generation, from one stamp after the other, into one file each: an agent keeps copies."""
    image: Image
    ring: list[Stamp]
    folder: Path
    generation: int = 0
    id: bytes = bytes(abi.ID_SIZE)

    def next(self) -> Path:
        """The file of the next generation. It may be removed when it was applied."""
        before = self.ring[(self.generation - 1) % len(self.ring)].payload.symbols
        stamp = self.ring[self.generation % len(self.ring)]
        targets = {name: before[f"{name}_new"] if self.generation else self.image.symbols[f"{name}.hr_body"]
                   for name in stamp.names}
        self.generation += 1
        data, self.id = stamp.stamped(self.generation, self.id, targets)
        path = self.folder / f"generation-{self.generation}.so"
        path.write_bytes(data)
        return path
