"""Two programs side by side: whether code and content of the one are those of the other, wherever they lie.

Both are walked in step, instruction by instruction and word by word. Each step yields a token for either side: bytes whose
relocated fields are blanked, and for each reference what it refers to, by name, or by number in the order in which nameless
content was met. Nameless content is walked too. Two things are the same if their digests over these tokens are; the first
token that differs is the explanation.
"""
from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from .. import arch
from .linked import SHF_EXECINSTR, SHF_WRITE, Unreadable
from .side import RESERVE, Place, Pointer, Side
from .updates import same_name

_RIP = re.compile(r"\[rip (?P<sign>[+-]) (?P<distance>0x[0-9a-f]+|\d+)\]|\[rip\]")
_FS = re.compile(r"fs:\[(?P<value>0x[0-9a-f]+|\d+)\]")
_NUMBER = re.compile(r"(?<![\w.])-?(?:0x[0-9a-f]+|\d+)(?!\w)")
_WIDTHS = {"byte": 1, "word": 2, "dword": 4, "qword": 8, "xmmword": 16, "ymmword": 32, "zmmword": 64, "tbyte": 10, "xword": 10,
           "fword": 6}
_WIDTH = re.compile(r"\b(?P<width>[a-z]*(?:byte|word)) ptr \[rip")
_BRANCH = re.compile(r"^(?:call|jmp|j\w+|loop\w*|jrcxz|jecxz|xbegin)$")
_CLONE_NUMBER = re.compile(r"\.\d+(?=\.|$)")
_TEXT = re.compile(rb"[\t\n\r\x1b -\xff]{2,}\0")
_SHORT_TEXT = re.compile(rb"[\t\n\r\x1b -~]?\0")     # where nothing is aligned, a number is not what lies there
_TABLE = 3                # entries that no other content has by accident
_STRIDE = 256             # bytes of plain content that are compared at once
_MOST = 1 << 20           # bytes of nameless content that are walked


class Instruction(NamedTuple):
    at: int
    size: int
    mnemonic: str
    operands: str
    data: bytes


class Different(Exception):
    """The first thing that differs; the message says what."""


@dataclass
class Pair:
    """Two things that ought to be the same."""
    kind: str                # "code" | "text" | "content"
    new: int
    old: int
    size: int                # bytes, of content; 0: as far as it goes
    owner: str               # the named thing by which it was found


@dataclass
class Lockstep:
    new: Side
    old: Side
    boundaries: Callable[[], list[int]]                # of the new side's nameless content
    is_noise: Callable[[int, int, int, int], bool] = lambda new_at, old_at, new, old: False
    waiting: list[Pair] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)     # differences that only tell where the source stands
    _met: set[tuple[str, int, int]] = field(default_factory=set)
    _statics: dict[int, int] = field(default_factory=dict)       # start in the new image -> start in the process
    _statics_back: dict[int, int] = field(default_factory=dict)
    _thread_locals: dict[str, int] = field(default_factory=dict)

    # ---- places -------------------------------------------------------------------------------------------------

    def counterpart(self, new: int) -> int | None:
        """The object of the process that was found to be the one at `new`, though it is called otherwise."""
        return self._statics.get(new)

    def same_place(self, new: int, old: int, owner: str, size: int = 0) -> bool:
        """Whether an address means the same on both sides. Queues what has to be walked for that."""
        mine, theirs = self.new.names_at(new), self.old.names_at(old)
        if mine & theirs:
            return True
        if new in self.new.space.stubs or old in self.old.space.stubs or new in self.new.linkage or old in self.old.linkage:
            return False
        one, two = self.new.function_at(new), self.old.function_at(old)
        if one is not None or two is not None:
            return one is not None and two is not None and one.offset == two.offset and self._same_function(one, two, owner)
        here, there = self.new.object_at(new), self.old.object_at(old)
        named = _inside(here) or self._is_writable(new)       # elsewhere nameless content may lie behind an object
        if named and here is not None and there is not None and self._same_object(here, there):
            return True
        if named and self._explained_nearby(new, old):
            return True
        if _inside(here) or _inside(there):
            return False
        return self._nameless(new, old, size, owner)

    def _same_code(self, one: Place, two: Place, owner: str) -> bool:
        """Clones, cold halves, and functions without stubs: their content decides, and that the names go together."""
        if one.offset != two.offset or _clone_of(one.symbol.name) != _clone_of(two.symbol.name):
            return False
        self.queue(Pair("code", one.start, two.start, 0, owner))
        return True

    def _same_object(self, here: Place, there: Place) -> bool:
        if here.offset != there.offset:
            return False
        mine = self.new.names_at(here.start)
        theirs = self.old.names_at(there.start)
        if mine & theirs and not any(_numbered(n) for n in mine):
            return True
        known, back = self._statics.get(here.start), self._statics_back.get(there.start)
        if known is not None or back is not None:
            return known == there.start and back == here.start
        if not any(same_name(a, b) for a in mine for b in theirs):
            return False
        self._statics[here.start], self._statics_back[there.start] = there.start, here.start
        return True

    def _explained_nearby(self, new: int, old: int) -> bool:
        """Whether both lie at one distance from an object of one name: compilers refer to `array - 8` by what precedes it.
        Never asked of places where there may be nameless content, which could be two things at one distance."""
        for distance in (1, 2, 4, 8, 16, 24, 32, 48, 64):
            for step in (distance, -distance):
                here, there = self.new.object_at(new + step), self.old.object_at(old + step)
                if here is not None and there is not None and here.offset == there.offset \
                        and self.new.names_at(here.start) & self.old.names_at(there.start):
                    return True
        return False

    def _is_writable(self, new: int) -> bool:
        file = self.new.space.file_at(new)
        section = file.section_of(new) if file is not None else None
        return section is not None and bool(section.flags & SHF_WRITE)

    def _nameless(self, new: int, old: int, size: int, owner: str) -> bool:
        if not self._holds(self.new, new) or not self._holds(self.old, old):
            return False
        self.queue(Pair("content", new, old, size, owner))
        return True

    def _holds(self, side: Side, address: int) -> bool:
        file = side.space.file_at(address)
        section = file.section_of(address) if file is not None else None
        return section is not None and not section.flags & SHF_EXECINSTR

    def queue(self, pair: Pair) -> None:
        key = (f"{pair.kind}{pair.size}", pair.new, pair.old)
        if key not in self._met:
            self._met.add(key)
            self.waiting.append(pair)

    def met_old(self) -> set[int]:
        """Addresses of the process that were walked, or are to be."""
        return {old for _, _, old in self._met}

    # ---- pointers -----------------------------------------------------------------------------------------------

    def same_pointer(self, new: Pointer | None, old: Pointer | None, owner: str) -> bool:
        if new is None or old is None or new.kind != old.kind:
            return new is None and old is None
        if new.kind == "tls":
            return self.same_thread_local(new.address or 0, old.address or 0)
        if new.kind == "module" or new.name and new.name == old.name:
            return True
        if new.address is not None and old.address is not None:
            return self.same_place(new.address, old.address, owner)
        return bool(new.name and old.address is not None and new.name in self.old.names_at(old.address)
                    or old.name and new.address is not None and old.name in self.new.names_at(new.address))

    def same_thread_local(self, new: int, old: int) -> bool:
        """Two offsets in the block. New variables live in the reserve, where none has a name: each has its own place there."""
        mine, theirs = self.new.thread_local(new), self.old.thread_local(old)
        if mine is None or theirs is None:
            return False
        if theirs[0] == RESERVE != mine[0]:
            return self._thread_locals.setdefault(mine[0], old - mine[1]) == old - mine[1]
        return mine[1] == theirs[1] and (mine[0] == theirs[0] or same_name(mine[0], theirs[0]))

    # ---- code ---------------------------------------------------------------------------------------------------

    def code(self, new: int, old: int, size: int, owner: str) -> str:
        """Walk `size` bytes of code; returns the digest, equal on both sides. Raises Different."""
        digest = hashlib.blake2b(b"%d:" % size, digest_size=16)
        ours = _decode(self.new.space.read(new, size), new)
        theirs = _decode(self.old.space.read(old, size), old)
        i = j = 0
        while i < len(ours) and j < len(theirs):
            mine, other = ours[i], theirs[j]
            if mine.at - new != other.at - old:
                raise Different(f"at +{mine.at - new:#x} instructions of other lengths")
            step = _Step(self, new, old, size, owner)
            if step.equal(mine, other):
                digest.update(step.token)
                i, j = i + 1, j + 1
                continue
            taken = step.equivalent(ours[i:i + 4], theirs[j:j + 4])
            if taken is None:
                raise Different(f"at +{mine.at - new:#x}: {step.why or _shown(mine, other)}")
            digest.update(step.token)
            i, j = i + taken[0], j + taken[1]
        done = sum(x.size for x in ours)
        if i < len(ours) or j < len(theirs) or self.new.space.read(new + done, size - done) != self.old.space.read(
                old + done, size - done):
            raise Different(f"at +{done:#x} bytes that are no instructions")
        return digest.hexdigest()

    # ---- content ------------------------------------------------------------------------------------------------

    def content(self, new: int, old: int, size: int, owner: str) -> str:
        """Walk `size` bytes of data; returns the digest. Raises Different."""
        ours, theirs = self.new.read(new, size), self.old.read(old, size)
        digest = hashlib.blake2b(b"%d:" % size, digest_size=16)
        at = 0
        while at < size:
            step = min(_STRIDE, size - at)
            if (new + at) % _STRIDE == 0 and ours[at:at + step] == theirs[at:at + step] and self.new.is_plain(
                    new + at, step) and self.old.is_plain(old + at, step):
                digest.update(ours[at:at + step])
                at += step
                continue
            if size - at >= 8:
                mine, other = self.new.pointer(new + at), self.old.pointer(old + at)
                word = ours[at:at + 8], theirs[at:at + 8]
                if mine is not None or other is not None or (new + at) % 8 == 0 and word[0] != word[1]:
                    if self._same_word(mine, other, word, owner):
                        digest.update(b"|pointer")
                        at += 8
                        continue
                    if mine is not None or other is not None:
                        raise Different(f"at +{at:#x}: {self.say(self.new, mine)} there, {self.say(self.old, other)} here")
            if ours[at] != theirs[at]:
                raise Different(f"at +{at:#x}: byte {ours[at]:#04x} there, {theirs[at]:#04x} here")
            digest.update(ours[at:at + 1])
            at += 1
        return digest.hexdigest()

    def _same_word(self, mine: Pointer | None, other: Pointer | None, word: tuple[bytes, bytes], owner: str) -> bool:
        """Absolute images, and packed relocations, hold addresses that no relocation shows."""
        one = mine or _plain(word[0], self.new)
        two = other or _plain(word[1], self.old)
        return one is not None and two is not None and self.same_pointer(one, two, owner)

    def nameless(self, pair: Pair) -> str:
        """Walk content without a symbol. Where its size is not known it ends with its text, or where the new image refers to
        the next thing. Raises Different."""
        if pair.size:
            return self.content(pair.new, pair.old, pair.size, pair.owner)
        end = self._end(pair.new)
        if self._entry(pair, 0) is not None:
            table = self._jump_table(pair, min(self._next_boundary(pair.new, end) - pair.new, _MOST))
            if table:
                return table
        if self._is_pointer_table(pair):
            limit = min(self._next_boundary(pair.new, end) - pair.new, _MOST)
            ends = (at for at in range(0, limit - 7, 8) if self._code_at(self.new, pair.new + at) is None)
            return self.content(pair.new, pair.old, next(ends, limit // 8 * 8), pair.owner)
        ours = self.new.read(pair.new, min(end - pair.new, _MOST))
        text = _TEXT.match(ours) or ((pair.new % 4 or pair.old % 4) and _SHORT_TEXT.match(ours))
        size = len(text[0]) if text else min(self._next_boundary(pair.new, end) - pair.new, _MOST)
        return self.content(pair.new, pair.old, max(size, 1), pair.owner)

    def _end(self, address: int) -> int:
        file = self.new.space.file_at(address)
        section = file.section_of(address) if file is not None else None
        if section is None:
            raise Different(f"nothing lies at {address:#x} of the new image")
        return section.end

    def _next_boundary(self, address: int, end: int) -> int:
        known = self.boundaries()
        at = bisect_right(known, address)
        return min(known[at], end) if at < len(known) else end

    def _jump_table(self, pair: Pair, size: int) -> str:
        """Distances from the table to places in the function that it belongs to; "" if it is none. It ends before the first
        word that is no such distance."""
        digest = hashlib.blake2b(digest_size=16)
        count = 0
        for at in range(0, size - 3, 4):
            places = self._entry(pair, at)
            if places is None:
                break
            if places[0].offset != places[1].offset or not self._same_function(*places, pair.owner):
                raise Different(f"entry {count} of a jump table leads elsewhere")
            digest.update(b"|%d" % places[0].offset)
            count += 1
        padding = count and not any(self.new.read(pair.new + 4 * count, max(0, size - 4 * count)))
        return digest.hexdigest() if count >= _TABLE or padding else ""

    def _is_pointer_table(self, pair: Pair) -> bool:
        """Whether it begins with the address of code: in an absolute image a table of jumps, which could pass for text."""
        if not self.new.absolute or pair.new % 8 or pair.old % 8 or self.old.space.file_at(pair.old, 8) is None:
            return False
        return self._code_at(self.new, pair.new) is not None and self._code_at(self.old, pair.old) is not None

    @staticmethod
    def _code_at(side: Side, address: int) -> Place | None:
        """The code whose address a word holds."""
        return side.function_at(int.from_bytes(side.read(address, 8), "little"))

    def _entry(self, pair: Pair, at: int) -> tuple[Place, Place] | None:
        """The places in code to which a word leads as a distance from the start of the table, on both sides."""
        found = []
        for side, start in ((self.new, pair.new), (self.old, pair.old)):
            if side.space.file_at(start + at, 4) is None:
                return None
            place = side.function_at(start + int.from_bytes(side.read(start + at, 4), "little", signed=True))
            if place is None:
                return None
            found.append(place)
        return found[0], found[1]

    def _same_function(self, one: Place, two: Place, owner: str) -> bool:
        mine, theirs = self.new.bodies.get(one.start), self.old.bodies.get(two.start)
        if mine is not None and theirs is not None:
            return mine == theirs or self.old.entries.get(mine) == self.old.entries.get(theirs)
        return self._same_code(one, two, owner)

    # ---- words --------------------------------------------------------------------------------------------------

    def say(self, side: Side, what: Pointer | int | None) -> str:
        """An address for people."""
        if what is None:
            return "no address"
        if isinstance(what, Pointer):
            if what.name or what.address is None:
                return what.name or what.kind
            what = what.address
        known = sorted(side.names_at(what))
        if known:
            return known[0]
        if what in side.space.stubs:
            return f"a former {sorted(s.name for s in side.space.functions_at(what))[0]}"
        place = side.function_at(what) or side.object_at(what)
        return f"{place.symbol.name}+{place.offset:#x}" if place is not None else f"{what:#x}"


def _inside(place: Place | None) -> bool:
    return place is not None and place.offset < place.symbol.size


def _clone_of(name: str) -> str:
    """A clone's name without its numbers, which the compiler gives anew in each compilation."""
    return _CLONE_NUMBER.sub("", name.partition("@")[0].removesuffix(".hr_new"))


def _numbered(name: str) -> bool:
    """Whether it may be a static local, whose number says nothing."""
    stem, dot, number = name.partition("~")[0].rpartition(".")
    return bool(dot) and number.isdecimal()


def _plain(word: bytes, side: Side) -> Pointer | None:
    value = int.from_bytes(word, "little")
    return Pointer(value) if value >= 0x1000 and side.space.file_at(value) is not None else None


@lru_cache(maxsize=2048)       # the new image's code is asked for twice, and again with the next bundle
def _decode(code: bytes, address: int) -> list[Instruction]:
    return [Instruction(at, size, m.rpartition(" ")[2], o, code[at - address:at - address + size])
            for at, size, m, o in arch.x86_64.disassembly(code, address)]


def _shown(mine: Instruction, other: Instruction) -> str:
    return f"`{mine.mnemonic} {mine.operands}` there, `{other.mnemonic} {other.operands}` here"


# ---- one instruction --------------------------------------------------------------------------------------------


@dataclass
class _Step:
    """One instruction of both sides. `token` is what it comes to; `why` says what differs, where that is known."""
    lock: Lockstep
    new: int
    old: int
    size: int
    owner: str
    token: bytes = b""
    why: str = ""

    def equal(self, mine: Instruction, other: Instruction) -> bool:
        """The same instruction, with references to the same things."""
        if mine.size != other.size or mine.mnemonic != other.mnemonic:
            return False
        if "rip" in mine.operands or "rip" in other.operands:
            return self._by_place(mine, other)
        if _BRANCH.match(mine.mnemonic) and mine.operands.startswith("0x") and other.operands.startswith("0x"):
            return self._branch(mine, other)
        if mine.data == other.data and not self._may_refer(mine, other):
            self.token = b"|" + mine.data
            return True
        return self._by_number(mine, other)

    def _branch(self, mine: Instruction, other: Instruction) -> bool:
        one, two = int(mine.operands, 16), int(other.operands, 16)
        opcode = mine.size - (1 if mine.size == 2 else 4)
        if mine.data[:opcode] != other.data[:opcode]:
            return False
        if self._own(one, two) or not self._is_own(one, two) and self.lock.same_place(one, two, self.owner):
            self.token = b"|" + mine.data[:opcode] + self._name(one)
            return True
        self.why = f"goes to {self.lock.say(self.lock.new, one)} there, to {self.lock.say(self.lock.old, two)} here"
        return False

    def _is_own(self, one: int, two: int) -> bool:
        return self.new <= one < self.new + self.size or self.old <= two < self.old + self.size

    def _own(self, one: int, two: int) -> bool:
        return self.new <= one < self.new + self.size and one - self.new == two - self.old

    def _name(self, address: int) -> bytes:
        if self.new <= address < self.new + self.size:
            return b"+%d" % (address - self.new)
        return "=".join(sorted(self.lock.new.names_at(address))).encode("utf-8", "surrogateescape") or b"#"

    def _by_place(self, mine: Instruction, other: Instruction) -> bool:
        """An operand relative to the instruction."""
        one, two = _target(mine), _target(other)
        if one is None or two is None:
            return False
        fields = _field(mine, one - mine.at - mine.size), _field(other, two - other.at - other.size)
        if _blanked(mine.data, fields[0]) != _blanked(other.data, fields[1]):
            return False
        self.token = b"|" + _blanked(mine.data, fields[0]) + self._name(one)
        if self._own(one, two):
            return True
        if self.lock.new.is_got(one) and self.lock.old.is_got(two):
            held = _held(self.lock.new, one), _held(self.lock.old, two)
            if self.lock.same_pointer(*held, self.owner):
                return True
            self.why = f"takes {self.lock.say(self.lock.new, held[0])} there, {self.lock.say(self.lock.old, held[1])} here"
            return False
        match = _WIDTH.search(mine.operands)
        width = _WIDTHS.get(match["width"], 0) if match and mine.mnemonic != "lea" else 0
        if self.lock.same_place(one, two, self.owner, width):
            return True
        self.why = f"refers to {self.lock.say(self.lock.new, one)} there, to {self.lock.say(self.lock.old, two)} here"
        return False

    # ---- numbers that are addresses, thread-local offsets, or source lines ----------------------------------------

    def _may_refer(self, mine: Instruction, other: Instruction) -> bool:
        if "fs:[0x" in mine.operands:
            return True
        return self.lock.new.absolute and any(self._is_address(v) for v in _numbers(mine.operands))

    def _is_address(self, value: int) -> bool:
        """Numbers may be anything; an address is one only where a program can have something that it refers to."""
        image = self.lock.new.space.image
        section = image.section_of(value) if value >= 0x1000 else None
        return section is not None and (bool(section.flags & (SHF_WRITE | SHF_EXECINSTR)) or section.name.startswith(".rodata"))

    def _by_number(self, mine: Instruction, other: Instruction) -> bool:
        """Instructions that differ in numbers alone, each of which means the same."""
        if _NUMBER.sub("N", mine.operands) != _NUMBER.sub("N", other.operands):
            return False
        one, two = _numbers(mine.operands), _numbers(other.operands)
        fs = "fs:[" in mine.operands
        for a, b in zip(one, two):
            if not self._same_number(mine, other, a, b, fs):
                self.why = self.why or f"{_shown(mine, other)}"
                return False
        self.token = b"|" + mine.mnemonic.encode() + _NUMBER.sub("N", mine.operands).encode()
        return True

    def _same_number(self, mine: Instruction, other: Instruction, a: int, b: int, fs: bool) -> bool:
        lock = self.lock
        size = lock.new.tls_size, lock.old.tls_size
        x, y = _signed(a), _signed(b)
        if -size[0] <= x < 0 and -size[1] <= y < 0 and (fs or x != y):
            if lock.same_thread_local(x + size[0], y + size[1]):
                return True
        if fs and (x < 0 or y < 0):
            return False
        if lock.new.absolute and self._is_address(a) and lock.old.space.file_at(b) is not None:
            return self._own(a, b) or lock.same_place(a, b, self.owner)
        if a == b:
            return True
        if 0 <= x < size[0] and 0 <= y < size[1] and lock.new.thread_local(x) and lock.same_thread_local(x, y) \
                and "[rax + " in mine.operands + " ":
            return True
        if lock.is_noise(mine.at, other.at, a, b):
            lock.noise.append(f"{self.owner}: line {a} there, {b} here")
            return True
        return False

    # ---- what linkers make of one and the same instruction --------------------------------------------------------

    def equivalent(self, ours: list[Instruction], theirs: list[Instruction]) -> tuple[int, int] | None:
        """How many instructions of either side come to the same by relaxation (psABI §B.2, ELF TLS ABI §4.4); None: none do."""
        for rule in (self._address_loaded, self._call_through_word, self._offset_loaded, self._thread_local_address):
            taken = rule(ours, theirs)
            if taken is not None:
                self.token = b"|" + rule.__name__.encode()
                return taken
        return None

    def _address_loaded(self, ours: list[Instruction], theirs: list[Instruction]) -> tuple[int, int] | None:
        """`lea S(%rip), %r`, `mov $S, %r` or `mov S@GOTPCREL(%rip), %r`."""
        one, two = _loads(ours[0], self.lock.new), _loads(theirs[0], self.lock.old)
        if one is None or two is None or one[0] != two[0] or ours[0].size != theirs[0].size:
            return None
        if self.lock.same_pointer(one[1], two[1], self.owner):
            return 1, 1
        self.why = f"loads {self.lock.say(self.lock.new, one[1])} there, {self.lock.say(self.lock.old, two[1])} here"
        return None

    def _call_through_word(self, ours: list[Instruction], theirs: list[Instruction]) -> tuple[int, int] | None:
        """`call *S@GOTPCREL(%rip)`, or `call S` with a prefix or a nop to fill six bytes."""
        one, two = _goes(ours, self.lock.new), _goes(theirs, self.lock.old)
        if one is None or two is None or one[0] != two[0]:
            return None
        if self.lock.same_pointer(one[1], two[1], self.owner):
            return one[2], two[2]
        self.why = f"goes to {self.lock.say(self.lock.new, one[1])} there, to {self.lock.say(self.lock.old, two[1])} here"
        return None

    def _offset_loaded(self, ours: list[Instruction], theirs: list[Instruction]) -> tuple[int, int] | None:
        """`mov x@gottpoff(%rip), %r` or `mov $x@tpoff, %r`."""
        one, two = _offset(ours[0], self.lock.new), _offset(theirs[0], self.lock.old)
        if one is None or two is None or one[0] != two[0] or ours[0].size != theirs[0].size:
            return None
        sizes = self.lock.new.tls_size, self.lock.old.tls_size
        return (1, 1) if self.lock.same_thread_local(one[1] + sizes[0], two[1] + sizes[1]) else None

    def _thread_local_address(self, ours: list[Instruction], theirs: list[Instruction]) -> tuple[int, int] | None:
        """A call of __tls_get_addr, or what it is relaxed to: the same number of bytes, the address in %rax."""
        one, two = _tls_address(ours, self.lock.new), _tls_address(theirs, self.lock.old)
        if one is None or two is None or one[1:] != two[1:] and one[1] != two[1]:
            return None
        if one[0] is None or two[0] is None:          # the block itself, in the local dynamic model
            return (one[2], two[2]) if one[0] is two[0] else None
        return (one[2], two[2]) if self.lock.same_thread_local(one[0], two[0]) else None


def _target(instruction: Instruction) -> int | None:
    match = _RIP.search(instruction.operands)
    if match is None:
        return None
    distance = int(match["distance"], 0) if match["distance"] else 0
    return instruction.at + instruction.size + (-distance if match["sign"] == "-" else distance)


def _field(instruction: Instruction, distance: int) -> int:
    """Where in the instruction the displacement lies; an immediate may follow it."""
    wanted = distance.to_bytes(4, "little", signed=True)
    for behind in (0, 1, 2, 4):
        at = instruction.size - 4 - behind
        if at > 0 and instruction.data[at:at + 4] == wanted:
            return at
    raise Unreadable(f"the displacement of the instruction at {instruction.at:#x} is not found")


def _blanked(data: bytes, field_: int) -> bytes:
    return data[:field_] + bytes(4) + data[field_ + 4:]


def _numbers(operands: str) -> list[int]:
    return [int(n, 0) for n in _NUMBER.findall(operands)]


def _signed(value: int) -> int:
    """Capstone prints a displacement of fs as unsigned, of 32 or 64 bits."""
    if value >= 1 << 63:
        return value - (1 << 64)
    return value - (1 << 32) if 1 << 31 <= value < 1 << 32 else value


def _held(side: Side, address: int) -> Pointer | None:
    """The address in a word: by its relocation, or as an absolute image has it."""
    return side.pointer(address) or _plain(side.space.read(address, 8), side)


def _loads(instruction: Instruction, side: Side) -> tuple[str, Pointer] | None:
    """(register, what it is given) of an instruction that loads an address."""
    register, _, rest = instruction.operands.partition(", ")
    target = _target(instruction)
    if instruction.mnemonic == "lea" and target is not None:
        return register, Pointer(target)
    if instruction.mnemonic == "mov" and target is not None and rest.startswith("qword ptr [rip"):
        held = _held(side, target) if side.space.file_at(target, 8) is not None else None
        return (register, held) if held is not None and held.kind == "address" else None
    if instruction.mnemonic == "mov" and re.fullmatch(r"0x[0-9a-f]+", rest) and side.absolute:
        return register, Pointer(int(rest, 16))
    return None


def _goes(instructions: list[Instruction], side: Side) -> tuple[str, Pointer, int] | None:
    """("call" or "jmp", where to, instructions) of six bytes that go somewhere."""
    first = instructions[0]
    if first.mnemonic not in ("call", "jmp"):
        return None
    target = _target(first)
    if target is not None and first.size == 6:
        held = _held(side, target)
        return (first.mnemonic, held, 1) if held is not None else None
    if not first.operands.startswith("0x"):
        return None
    goal = Pointer(int(first.operands, 16), side.linkage.get(int(first.operands, 16), ""))
    if first.size == 6:
        return first.mnemonic, goal, 1
    if first.size == 5 and len(instructions) > 1 and instructions[1].mnemonic == "nop" and instructions[1].size == 1:
        return first.mnemonic, goal, 2
    return None


def _offset(instruction: Instruction, side: Side) -> tuple[str, int] | None:
    """(register, offset from the thread pointer) of an instruction that loads one."""
    register, _, rest = instruction.operands.partition(", ")
    target = _target(instruction)
    if instruction.mnemonic not in ("mov", "add", "lea"):
        return None
    if target is not None and instruction.mnemonic != "lea" and side.space.file_at(target, 8) is not None:
        held = side.pointer(target)
        if held is not None and held.kind == "tls" and held.address is not None:
            return register, held.address - side.tls_size
        value = int.from_bytes(side.space.read(target, 8), "little", signed=True) if held is None else 0
        return (register, value) if -side.tls_size <= value < 0 else None
    found = re.fullmatch(r"-?0x[0-9a-f]+|-\d+", rest) or re.fullmatch(rf"\[{register} ([+-] 0x[0-9a-f]+)\]", rest)
    if found is None:
        return None
    value = _signed(int((found[1] if found.lastindex else found[0]).replace(" ", ""), 0))
    return (register, value) if -side.tls_size <= value < 0 else None


def _tls_address(instructions: list[Instruction], side: Side) -> tuple[int | None, int, int] | None:
    """(offset in the block or None for its start, bytes, instructions) of code that puts a thread-local's address into %rax."""
    if len(instructions) < 2:
        return None
    first, second = instructions[:2]
    target = _target(first)
    calls = second.mnemonic == "call" and "__tls_get_addr" in _called(second, side)
    if first.mnemonic == "lea" and first.operands.startswith("rdi, ") and target is not None and calls:
        words = side.pointer(target), int.from_bytes(side.space.read(target + 8, 8), "little")
        held = side.pointer(target + 8)
        offset = held.address if held is not None and held.address is not None else words[1]
        is_start = first.size == 7 and offset == 0
        return None if is_start else offset, first.size + second.size, 2
    if first.mnemonic == "mov" and first.operands in ("rax, qword ptr fs:[0]", "rax, qword ptr fs:[0x0]"):
        if first.size >= 12:
            return None, first.size, 1
        match = re.fullmatch(r"rax, \[rax ([+-]) (0x[0-9a-f]+|\d+)\]", second.operands)
        if second.mnemonic == "lea" and match:
            value = int(match[2], 0) * (-1 if match[1] == "-" else 1)
            return value + side.tls_size, first.size + second.size, 2
    return None


def _called(instruction: Instruction, side: Side) -> frozenset[str]:
    target = _target(instruction)
    if target is not None:
        held = side.pointer(target)
        return frozenset({held.name}) if held is not None else frozenset()
    return side.names_at(int(instruction.operands, 16)) if instruction.operands.startswith("0x") else frozenset()


def targets(code: bytes, address: int) -> Iterator[int]:
    """Every address that code refers to."""
    for instruction in _decode(code, address):
        target = _target(instruction)
        if target is not None:
            yield target
        elif instruction.operands.startswith("0x") and _BRANCH.match(instruction.mnemonic):
            yield int(instruction.operands, 16)
        else:
            yield from _numbers(instruction.operands)
