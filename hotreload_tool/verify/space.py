"""An image and the payloads laid over it, as one process would have them: what lies where, and what each slot holds.

Only bytes of the files are used. Addresses are image-relative.
"""
from __future__ import annotations

import struct
from bisect import bisect_right
from functools import cached_property, lru_cache

from .. import abi, names
from . import heads
from .linked import FUNC, OBJECT, PF_W, PF_X, SHF_TLS, TLS, Linked, Symbol, Unreadable
from .tables import Payload, loaded_word, slots

_IMAGE_MAGIC = 0x31474D49            # HR_IMAGE_MAGIC of runtime/hotreload_abi.h
_ARENA_FIELD = 24                    # offset of arena_start in struct hr_image_head
_JUMP = b"\xff\x25"                  # jmp *disp32(%rip)
# Before the jump of a stub: nothing, notrack, endbr64, that with notrack or bnd.
_HEADS = (b"", b"\x3e", b"\xf3\x0f\x1e\xfa\x3e", b"\xf3\x0f\x1e\xfa", b"\xf3\x0f\x1e\xfa\xf2")


class Space:
    """The image and, oldest first, the payloads of its generations."""

    def __init__(self, image: Linked, payloads: list[Payload] | None = None) -> None:
        self.image = image
        self.payloads = payloads or []
        self.files = [image, *(p.file for p in self.payloads)]

    # ---- memory -------------------------------------------------------------------------------------------------

    @cached_property
    def arena(self) -> tuple[int, int] | None:
        """The range the runtime keeps free for payloads; None if the image has no runtime."""
        for owner, kind, address, content in self.image.notes():
            if owner == names.NOTE_OWNER and kind == abi.NOTE_IMAGE and len(content) == 8:
                at = address + struct.unpack("<q", content)[0]
                if int.from_bytes(self.image.read(at, 4), "little") == _IMAGE_MAGIC:
                    return tuple(loaded_word(self.image, at + _ARENA_FIELD + i) for i in (0, 8))  # type: ignore[return-value]
        return None

    def file_at(self, address: int, size: int = 1) -> Linked | None:
        """Whose bytes lie there: payloads come before the image, in whose arena they are."""
        for payload in reversed(self.payloads):
            if payload.file.load_of(address, size) is not None:
                return payload.file
        return self.image if self.image.load_of(address, size) is not None and not self._in_arena(address) else None

    def _in_arena(self, address: int) -> bool:
        return self.arena is not None and self.arena[0] <= address < self.arena[1]

    def read(self, address: int, size: int) -> bytes:
        """As linked, without what updates wrote. Raises Unreadable."""
        file = self.file_at(address, size)
        if file is None:
            raise Unreadable(f"nothing lies at {address:#x}")
        return file.read(address, size)

    def word(self, address: int) -> int:
        """What 8 bytes hold after loading, before any redirect or update."""
        file = self.file_at(address, 8)
        if file is None:
            raise Unreadable(f"nothing lies at {address:#x}")
        return loaded_word(file, address)

    def is_code(self, address: int, size: int = 1) -> bool:
        file = self.file_at(address, max(size, 1))
        return file is not None and file.executable(address, max(size, 1))

    # ---- slots --------------------------------------------------------------------------------------------------

    @cached_property
    def slots(self) -> dict[int, str]:
        """Every slot of the image and the payloads -> the name of its stub."""
        found = dict(slots(self.image))
        for payload in self.payloads:
            found.update(payload.own_slots)
        return found

    def slot_holds(self, slot: int) -> int:
        """The code a slot leads to once all payloads are applied."""
        return self._redirected[slot] if slot in self._redirected else self.word(slot)

    @cached_property
    def _redirected(self) -> dict[int, int]:
        return {r.slot: r.new for payload in self.payloads for r in payload.redirects}

    @cached_property
    def stubs(self) -> dict[int, int]:
        """Every stub -> its slot, by decoding the code that symbols of functions name."""
        return {address: slot for file in self.files for address, slot in _jumps(file)
                if slot in self.slots and self.file_at(address) is file}

    @cached_property
    def stubs_of_slot(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for stub, slot in self.stubs.items():
            found.setdefault(slot, []).append(stub)
        return found

    def head_of(self, slot: int) -> int:
        """The two bytes of the image's code that must be a jump before this slot means anything; 0: it has a stub."""
        found = [heads.place(self.image, s) for s in self.stubs_of_slot.get(slot, []) if self.file_at(s) is self.image]
        return max(found, default=0)

    @cached_property
    def heads(self) -> list[tuple[int, int, int]]:
        """All heads of the image, by address: where the two bytes lie, the function's entry, its slot."""
        found = [(heads.place(self.image, entry), entry, slot) for entry, slot in self.stubs.items()
                 if self.file_at(entry) is self.image]
        return sorted(head for head in found if head[0])

    # ---- symbols ------------------------------------------------------------------------------------------------

    def symbols_at(self, address: int) -> list[Symbol]:
        file = self.file_at(address)
        return file.by_address.get(address, []) if file is not None else []

    def functions_at(self, address: int) -> list[Symbol]:
        return [s for s in self.symbols_at(address) if s.type == FUNC]

    @cached_property
    def _objects(self) -> dict[int, list[Symbol]]:
        """For each file (by place in `files`): symbols of data, by address."""
        return {i: _objects(f)[0] for i, f in enumerate(self.files)}

    @cached_property
    def _object_starts(self) -> dict[int, list[int]]:
        return {i: _objects(f)[1] for i, f in enumerate(self.files)}

    @cached_property
    def tls_start(self) -> int:
        """Where the initial values of the image's thread-locals begin; 0 if it has none."""
        return next((s.address for s in self.image.segments if s.type == "PT_TLS"), 0)

    @cached_property
    def thread_room(self) -> tuple[int, int]:
        """The range of those that the runtime keeps for new thread-locals; empty if it begins every thread with zeros."""
        segment = next((s for s in self.image.segments if s.type == "PT_TLS"), None)
        room = next((s for s in self.image.symbols if s.name == names.TLS_RESERVE and s.type == TLS and s.defined), None)
        if segment is None or room is None or room.value + room.size > segment.file_size:
            return 0, 0
        return segment.address + room.value, segment.address + room.value + room.size

    def object_at(self, address: int) -> tuple[Symbol, int] | None:
        """The data symbol at or before `address` in its section, and where the next one (or the section) begins."""
        file = self.file_at(address)
        if file is None:
            return None
        index = self.files.index(file)
        objects, starts = self._objects[index], self._object_starts[index]
        at = bisect_right(starts, address) - 1
        section = file.section_of(address)
        if at < 0 or section is None or objects[at].value < section.address:
            return None
        at = bisect_right(starts, objects[at].value - 1)      # the first, largest of several at one place
        return objects[at], _following(starts, objects[at].value, section.end)

    def end_of(self, address: int) -> int | None:
        """Where the next data symbol behind `address` begins, or its section ends; None if it lies in none."""
        file = self.file_at(address)
        section = file.section_of(address) if file is not None else None
        if file is None or section is None:
            return None
        return _following(self._object_starts[self.files.index(file)], address, section.end)

    def is_sealed_or_data(self, address: int, size: int) -> bool:
        """Whether these bytes lie in data: readable, not executable."""
        file = self.file_at(address, size)
        load = file.load_of(address, size) if file is not None else None
        return load is not None and not load.flags & PF_X

    def is_variable(self, address: int, size: int) -> bool:
        """Whether these bytes lie in a segment that the loader maps writable (RELRO included)."""
        file = self.file_at(address, size)
        load = file.load_of(address, size) if file is not None else None
        return load is not None and bool(load.flags & PF_W) and not load.flags & PF_X


@lru_cache(maxsize=16)
def _objects(file: Linked) -> tuple[list[Symbol], list[int]]:
    """Symbols of data of a file by address, and these addresses."""
    found = sorted((s for known in file.by_address.values() for s in known if s.type == OBJECT and not _thread_local(file, s)),
                   key=lambda s: (s.value, -s.size))
    return found, [s.value for s in found]


@lru_cache(maxsize=16)
def _jumps(file: Linked) -> list[tuple[int, int]]:
    """Functions of a file that begin with a jump through a word -> that word."""
    return [(address, slot) for address, symbols in file.by_address.items()
            if any(s.type == FUNC for s in symbols) and file.executable(address) and (slot := stub_slot(file, address))]


def _following(starts: list[int], address: int, end: int) -> int:
    at = bisect_right(starts, address)
    return min(end, starts[at]) if at < len(starts) else end


def _thread_local(file: Linked, symbol: Symbol) -> bool:
    return symbol.section < len(file.sections) and bool(file.sections[symbol.section].flags & SHF_TLS)


def stub_slot(file: Linked, address: int) -> int:
    """The slot that the stub at `address` jumps through; 0 if there is no stub. Bytes: psABI, `jmp *slot(%rip)`."""
    load = file.load_of(address)
    if load is None:
        return 0
    code = file.read(address, min(16, load.end - address))
    for head in _HEADS:
        if code.startswith(head + _JUMP) and len(code) >= len(head) + 6:
            at = len(head) + len(_JUMP)
            return int(address + at + 4 + int.from_bytes(code[at:at + 4], "little", signed=True))
    return heads.slot(file, address)
