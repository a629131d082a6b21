"""What a process runs, by its memory: whether code, constants and slots are what image and bundles say.

The agent inside is asked for nothing: a tampered process could have it say anything. What it claims is compared at the end.
"""
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..names import BODY_SUFFIX
from ..payload import NEW_SUFFIX
from . import container, heads, tables, transience
from .linked import PF_W, PF_X, Linked, Segment, Unreadable
from .memory import Loaded, Mapping, Memory
from .side import Side
from .space import Space
from .tables import Payload
from .verdict import Verdict

_PAGE = 4096
_ADDRESSES = (tables.R_64, tables.R_GLOB_DAT, tables.R_JUMP_SLOT)


@dataclass
class Attested:
    """One image of a process."""
    path: str
    build_id: str
    generation: int = 0                        # that is live, by what the slots hold
    ids: list[str] = field(default_factory=list)       # of the live generations, oldest first
    unknown: str = ""                          # why it could not be compared at all
    not_at_hand: bool = False                  # whether the image, or what brought some of its code, is not among what is known
    problems: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)     # whose code, slot or constants are not what they should be
    checked: dict[str, int] = field(default_factory=dict)  # bytes and slots that were compared

    def document(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class Known:
    """What can be compared with: images by build-id, and the payloads of each image's generations."""
    images: dict[str, tuple[Path, Linked]] = field(default_factory=dict)
    payloads: dict[str, list[Payload]] = field(default_factory=dict)      # build-id -> in no order


def known(images: Iterable[Path], bundles: Iterable[Path]) -> Known:
    """Read images and bundles; a bundle that is not sound as a file counts for nothing."""
    found = Known()
    for path in images:
        try:
            image = Linked(path.read_bytes(), str(path))
            found.images.setdefault(image.build_id, (path, image))
        except (Unreadable, OSError):
            continue
    for path in bundles:
        contents = container.check(path.read_bytes(), Verdict(str(path)))
        for number, entry in enumerate(contents.images if contents else []):
            try:
                assert contents is not None
                payload = Payload(Linked(contents.payload(number), str(path)))
                found.payloads.setdefault(entry["build_id"], []).append(payload)
            except Unreadable:
                continue
    return found


def attest(memory: Memory, loaded: Loaded, what: Known) -> Attested:
    """Compare one image of a process with what is known of it."""
    found = Attested(loaded.path, loaded.build_id)
    if loaded.build_id not in what.images:
        found.unknown = f"no image with build-id {loaded.build_id} is at hand; name it with --image"
        found.not_at_hand = True
        return found
    image = what.images[loaded.build_id][1]
    try:
        _Work(memory, loaded, image, what.payloads.get(loaded.build_id, []), found).run()
    except (Unreadable, IndexError, ValueError, OverflowError) as e:
        found.unknown = f"the image or a bundle of it cannot be read: {e}"
    return found


class _Work:
    def __init__(self, memory: Memory, loaded: Loaded, image: Linked, payloads: Sequence[Payload], found: Attested) -> None:
        self.memory, self.bias, self.image, self.found = memory, loaded.bias, image, found
        self.mapped = sorted((p for p in payloads if self._is_mapped(p)), key=lambda p: p.header.generation)
        self.superseded = [p for p in payloads if transience.is_marked(p) and p not in self.mapped]
        self.chain = self._chain()
        self.space = Space(image, self.chain)
        self.side = Side(self.space)
        self.arena = Space(image).arena or (0, 0)

    def run(self) -> None:
        self.find_generation()
        self.protections()
        self.foreign_code()
        for payload in self.space.payloads:
            if payload in self.superseded and any(self.space.file_at(self.space.slot_holds(s)) is payload.file
                                                     for s in self.space.slots):
                self._problem("", f"generation {payload.header.generation} is needed and not mapped")
        absent = [p.file for p in self.superseded]
        for file in self.space.files:
            for load in file.loads if file not in absent else ():
                self.segment(file, load)
        self.slots()
        reverted = [p for p in self.mapped if p not in self.space.payloads]
        for payload in reverted:               # still mapped: somebody may run it, or have a pointer to it
            for load in payload.file.loads:
                if load.flags & PF_X:
                    self._compare(payload.file, load.address, load.size, payload.file.read(load.address, load.size))

    # ---- which generations --------------------------------------------------------------------------------------

    def _is_mapped(self, payload: Payload) -> bool:
        """Whether the payload's header is in memory where it belongs; what else is there is compared later."""
        head = self.memory.read(self.bias + payload.file.entry, 88)
        return len(head) == 88 and head[24:88].hex() == payload.header.id + payload.header.parent

    def _chain(self) -> list[Payload]:
        """The generations that follow each other from the image as built."""
        chain: list[Payload] = []
        parent = "0" * 64
        while True:
            following = [p for p in (*self.mapped, *self.superseded) if p.header.parent == parent and p not in chain]
            if not following:
                return chain
            best = max(following, key=self._slots_that_agree)     # after a revert another one may have taken its place
            chain.append(best)
            parent = best.header.id

    def _slots_that_agree(self, payload: Payload) -> int:
        return sum(self.memory.word(self.bias + r.slot) == self.bias + r.new for r in payload.redirects)

    def find_generation(self) -> None:
        """The longest part of the chain of which the slots know. Where none fits entirely it is the one that fits best."""
        best, wrong = len(self.chain), -1
        for length in range(len(self.chain), -1, -1):
            space = Space(self.image, self.chain[:length])
            here = sum(self.memory.word(self.bias + s) != self.bias + space.slot_holds(s) for s in space.slots)
            if wrong < 0 or here < wrong:
                best, wrong = length, here
        self.space = Space(self.image, self.chain[:best])
        self.side = Side(self.space)
        self.found.generation = best
        self.found.ids = [p.header.id for p in self.space.payloads]

    # ---- mappings -----------------------------------------------------------------------------------------------

    def _of_image(self) -> Iterator[Mapping]:
        start, end = self.image.loads[0].address // _PAGE * _PAGE, self.image.loads[-1].end
        for mapping in self.memory.mappings:
            if mapping.start < self.bias + end and self.bias + start < mapping.end:
                yield mapping

    def protections(self) -> None:
        for mapping in self._of_image():
            if "w" in mapping.mode and "x" in mapping.mode:
                self._problem("", f"{mapping.start:#x}..{mapping.end:#x} is writable and executable")

    def foreign_code(self) -> None:
        """Code in the arena that no bundle at hand brought."""
        own = sorted((self.bias + p.start, self.bias + p.end) for p in self.mapped)
        for mapping in self._of_image():
            low, high = max(mapping.start, self.bias + self.arena[0]), min(mapping.end, self.bias + self.arena[1])
            if low >= high or mapping.mode.startswith("---"):
                continue
            for start, end in own:                   # neighbours may share a mapping
                low = end if start <= low < end else low
            if low < high:
                what = "code" if "x" in mapping.mode else "content"
                self._problem("", f"foreign {what}: {low:#x}..{high:#x} in the arena ({mapping.path or 'memory without a file'}) "
                              "belongs to no bundle at hand")
                self.found.not_at_hand = True
        for load in self.image.loads:
            if load.flags & PF_X:
                for mapping in self.memory.mappings:
                    low, high = max(mapping.start, self.bias + load.address), min(mapping.end, self.bias + load.end)
                    if low < high and not mapping.has_file:
                        self._problem("", f"foreign code: {low:#x}..{high:#x} should be mapped from the image and is memory "
                                      "without a file")

    # ---- content ------------------------------------------------------------------------------------------------

    def segment(self, file: Linked, load: Segment) -> None:
        """Code, constants, and what is read-only once it is relocated. Variables are the program's business."""
        if not load.flags & PF_W:
            size = load.file_size
            self._compare(file, load.address, size, self.side.read(load.address, size) if size else b"")
            return
        for relocation in file.relocations:
            if load.address <= relocation.offset < load.end and relocation.type == tables.R_JUMP_SLOT:
                self._word(file, relocation.offset, self.memory.word(self.bias + relocation.offset) or 0)
        for relro in file.segments:
            if relro.type == "PT_GNU_RELRO" and load.address <= relro.address < load.end:
                self._relro(file, relro.address, min(relro.end, load.end) // 8 * 8)

    def _compare(self, file: Linked, address: int, size: int, expected: bytes) -> None:
        held = self.memory.read(self.bias + address, size)
        if file is self.image:
            expected = self._with_heads(address, held, expected)
        self._count("bytes", len(held))
        if len(held) < size:
            self._problem("", f"{size - len(held)} bytes at {self.bias + address + len(held):#x} are not mapped")
        if held == expected:
            return
        wrong: dict[str, list[int]] = {}
        for at in (i for i in range(len(held)) if held[i] != expected[i]):
            wrong.setdefault(self._name_at(file, address + at), []).append(address + at)
        for name, places in wrong.items():
            self._problem(name, f"{name}: {len(places)} bytes are not what {self._brought(file)} says, the first at "
                          f"{self.bias + places[0]:#x}")

    def _with_heads(self, address: int, held: bytes, expected: bytes) -> bytes:
        """Code of the image with heads as they may be: a jump once a patch took hold of the function, for ever after; and it
        must be one where the slot leads elsewhere than at the start."""
        known = self.space.heads
        first, end = bisect_left(known, (address, 0, 0)), bisect_left(known, (address + len(expected) - 1, 0, 0))
        found = bytearray(expected)
        for at, entry, slot in known[first:end]:
            jump, i = heads.armed(entry, at), at - address
            if held[i:i + heads.SIZE] == jump or self.memory.word(self.bias + slot) != self.bias + self.space.word(slot):
                found[i:i + heads.SIZE] = jump
        return bytes(found)

    def _name_at(self, file: Linked, address: int) -> str:
        """The function or object that an address of one file belongs to."""
        name = next(_by_place(file, address), f"{address:#x}")
        return name.removesuffix(NEW_SUFFIX).removesuffix(BODY_SUFFIX)

    def _relro(self, file: Linked, start: int, end: int) -> None:
        held = self.memory.read(self.bias + start, end - start)
        if len(held) < end - start:
            self._problem("", f"{end - start - len(held)} bytes at {self.bias + start + len(held):#x} are not mapped")
        words = {w for p in self.space.payloads for w in p.module_words}
        for at in range(start, start + len(held) // 8 * 8, 8):
            section = file.section_of(at)
            if at in self.space.slots or at in words or section is None or section.name == ".dynamic":
                continue
            self._count("bytes", 8)
            self._word(file, at, int.from_bytes(held[at - start:at - start + 8], "little"))

    def _word(self, file: Linked, at: int, value: int) -> None:
        relocation = file.relocation_at.get(at)
        section = file.section_of(at)
        if relocation is None or relocation.type == tables.R_NONE:
            expected = int.from_bytes(self.side.read(at, 8), "little")
            reserved = section is not None and section.name.startswith(".got")     # the loader's own words
            packed = value == self.bias + expected                                 # DT_RELR
            if value != expected and not reserved and not packed and not self._crosses(file, at):
                self._wrong_word(file, at, value, f"{expected:#x}")
            return
        pointer = self.side.pointer(at)
        if relocation.type == tables.R_RELATIVE and pointer is not None and pointer.address is not None:
            if value != self.bias + pointer.address:
                self._wrong_word(file, at, value, f"{self.bias + pointer.address:#x}")
        elif relocation.type in _ADDRESSES and value:
            mapping = self.memory.mapping(value)
            if mapping is None or not (mapping.has_file or mapping.path == "[vdso]"):
                name = pointer.name if pointer is not None else self._name_at(file, at)
                self._problem(name, f"{name}: the import leads to {self.memory.say(value)}")

    def _crosses(self, file: Linked, at: int) -> bool:
        """Whether a relocated word that is not aligned overlaps this one."""
        return any(at + d in file.relocation_at for d in range(-7, 8) if d)

    def _wrong_word(self, file: Linked, at: int, value: int, expected: str) -> None:
        name = self._name_at(file, at)
        self._problem(name, f"{name}: the word at {self.bias + at:#x} is {value:#x}, {self._brought(file)} says {expected}")

    def slots(self) -> None:
        for slot, name in self.space.slots.items():
            self._count("slots", 1)
            expected, value = self.bias + self.space.slot_holds(slot), self.memory.word(self.bias + slot)
            if value != expected:
                where = self.memory.say(value) if value is not None else "nothing"
                self._problem(name, f"{name}: its slot leads to {where}, not to its code of generation "
                              f"{self.found.generation} at {expected:#x}")

    # ---- results ------------------------------------------------------------------------------------------------

    def _brought(self, file: Linked) -> str:
        return "the image" if file is self.image else Path(file.where).name

    def _count(self, what: str, n: int) -> None:
        self.found.checked[what] = self.found.checked.get(what, 0) + n

    def _problem(self, name: str, text: str) -> None:
        self.found.problems.append(text)
        if name and name not in self.found.functions:
            self.found.functions.append(name)



def _by_place(file: Linked, address: int) -> Iterator[str]:
    """Names of the symbols that hold `address`, the narrowest first."""
    found = [(s.size, s.name) for s in file.symbols if s.defined and s.type in (1, 2) and s.value <= address < s.value + s.size]
    yield from (name for _, name in sorted(found))
