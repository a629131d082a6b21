"""Two programs side by side: whether code and content of the one are those of the other, wherever they lie.

Both are walked in step, instruction by instruction and word by word. Each step yields a token for either side: bytes whose
relocated fields are blanked, and for each reference what it refers to, by name, or by number in the order in which nameless
content was met. Nameless content is walked too. Two things are the same if their digests over these tokens are; the first
token that differs is the explanation.
"""
from __future__ import annotations

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import steps
from .instructions import (
    BRANCH,
    NUMBER,
    Instruction,
    blanked,
    decode,
    differ_in,
    field_of,
    goes,
    has_idle_bits,
    held_in,
    loads,
    may_be_offsets,
    numbers,
    offset_loaded,
    plain,
    signed,
    target_of,
    tls_address,
)
from .linked import FUNC, OBJECT, SHF_EXECINSTR, Symbol
from .side import RESERVE, Place, Pointer, Side
from .updates import is_numbered, same_name

_CLONENUMBER = re.compile(r"\.\d+(?=\.|$)")
_AT_START = re.compile(r"\[(r\w+)\]")
_TEXT = re.compile(rb"[\t\n\r\x1b -\xff]*\0")
_ALIGNMENT = 32           # bytes; the most that compilers align content to which is not larger
_NEAR = 64                # bytes; compilers refer to `array - 8` by what precedes it
_DISTANCES = "reltable."   # LLVM's pass RelLookupTableConverter names its tables so
_TABLE = 3                # entries that no other content has by accident
_TRAP = b"\xcc"            # int3, which assemblers fill code with
_MOST = 1 << 20           # bytes of nameless content that are walked


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
    steps: Callable[[int, int], list[steps.Step]]      # of so many bytes of its code
    same_owner: Callable[[int, int], bool] = lambda new, old: True      # of two static locals, by who uses them
    is_noise: Callable[[int, int, int, int], bool] = lambda new_at, old_at, new, old: False
    tables: Callable[[], Mapping[int, list[int]]] = dict          # of distances, of the new side: what their entries lead to
    waiting: list[Pair] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)     # differences that only tell where the source stands
    _met: set[tuple[str, int, int]] = field(default_factory=set)
    _statics: dict[int, int] = field(default_factory=dict)       # start in the new image -> start in the process
    _statics_back: dict[int, int] = field(default_factory=dict)
    _constants: dict[int, int] = field(default_factory=dict)
    _thread_locals: dict[int, tuple[int, int]] = field(default_factory=dict)   # place in the new image -> in the reserve, size
    _found_same: set[tuple[int, int, int]] = field(default_factory=set)      # places, and the sizes that they were asked for with

    _walked: int = 0                                   # the new image's code that is being walked
    _by_file: bool = False                             # whether the last place was found the same by whose code refers to it

    # ---- places -------------------------------------------------------------------------------------------------

    def counterpart(self, new: int) -> int | None:
        """The object of the process that was found to be the one at `new`, though it is called otherwise."""
        return self._statics.get(new, self._constants.get(new))

    def same_place(self, new: int, old: int, owner: str, size: int = 0) -> bool:
        """Whether an address means the same on both sides. Queues what has to be walked for that."""
        if (new, old, size) not in self._found_same:
            self._by_file = False
            if not self._same_place(new, old, owner, size):
                return False
            if not self._by_file:                  # which would say nothing about other code
                self._found_same.add((new, old, size))
        return True

    def _same_place(self, new: int, old: int, owner: str, size: int) -> bool:
        if any(self._is_firm(name) for name in self.new.names_at(new) & self.old.names_at(old)):
            return _same_version(self.new.linkage_versions.get(new, ""), self.old.linkage_versions.get(old, ""))
        if new in self.new.space.stubs or old in self.old.space.stubs or new in self.new.linkage or old in self.old.linkage:
            return False
        one, two = self.new.function_at(new), self.old.function_at(old)
        if one is not None or two is not None:
            return one is not None and two is not None and one.offset == two.offset and self._same_function(one, two, owner)
        return self._same_data(new, old, owner, size)

    def _same_data(self, new: int, old: int, owner: str, size: int) -> bool:
        here, there = self.new.object_at(new), self.old.object_at(old)
        named = _inside(here) or self._is_writable(self.new, new)       # elsewhere nameless content may lie behind an object
        if named and here is not None and there is not None and self._same_object(here, there, owner):
            return True
        if _inside(here) or _inside(there) and self._is_writable(self.old, old):
            return False
        if self._is_writable(self.new, new) and self._explained_nearby(new, old):
            return True
        beside = not size and self._is_beside(self.new, new) and self._is_beside(self.old, old)
        if beside and not self._explained_nearby(new, old):
            self._by_file = self._is_foreign(new)
            if not self._by_file:
                return False
        return self._nameless(new, old, size, owner)

    def _is_firm(self, name: str) -> bool:
        """Whether things that bear one name are one thing: numbers of static locals say nothing, nor do names that files which
        are not instrumented have for themselves."""
        return not is_numbered(name) and name not in self.new.repeated and name not in self.old.repeated

    def _same_code(self, one: Place, two: Place, owner: str) -> bool:
        """Clones, cold halves, and functions without stubs: their content decides, and that the names go together."""
        if one.offset != two.offset or _clone_of(one.symbol.name) != _clone_of(two.symbol.name):
            return False
        self.queue(Pair("code", one.start, two.start, 0, owner))
        return True

    def _same_object(self, here: Place, there: Place, owner: str) -> bool:
        if here.offset != there.offset:
            return False
        mine, theirs = self.new.names_at(here.start), self.old.names_at(there.start)
        if any(map(self._is_firm, mine & theirs)):
            return True
        known, back = self._statics.get(here.start), self._statics_back.get(there.start)
        if known is not None or back is not None:
            return known == there.start and back == here.start
        if not any(same_name(a, b) for a in mine for b in theirs):
            return False
        if self.new.is_constant(here.start) and self.old.is_constant(there.start):
            return self._same_constant(here, there, owner)
        if not self.same_owner(here.start, there.start):
            return False
        self._statics[here.start], self._statics_back[there.start] = there.start, here.start
        return True

    def _same_constant(self, here: Place, there: Place, owner: str) -> bool:
        """Constants whose names say nothing (`__func__`) are what they hold; several of one content may have become one."""
        if here.symbol.size != there.symbol.size:
            return False
        self._constants.setdefault(here.start, there.start)
        self.queue(Pair("content", here.start, there.start, here.symbol.size, owner))
        return True

    def _explained_nearby(self, new: int, old: int) -> bool:
        """Whether both lie at one distance from an object of one name: compilers refer to `array - 8` by what precedes it."""
        for distance in (1, 2, 4, 8, 16, 24, 32, 48, _NEAR):
            for step in (distance, -distance):
                here, there = self.new.object_at(new + step), self.old.object_at(old + step)
                if here is not None and there is not None and here.offset == there.offset \
                        and self.new.names_at(here.start) & self.old.names_at(there.start):
                    return True
        return False

    def _is_beside(self, side: Side, address: int) -> bool:
        """Whether a place among constants may be the end of a named one, or be one before it: between them is padding."""
        here = side.object_at(address)
        found = side.space.object_at(address)
        if here is None or found is None or self._ends_text(side, address):
            return False
        end = found[1]
        if here.offset == here.symbol.size:
            return True
        return 0 < end - address <= _NEAR and any(s.type == OBJECT for s in side.space.symbols_at(end)) \
            and not any(side.read(address, end - address))

    def _is_foreign(self, new: int) -> bool:
        """Whether the named constants around a place are local to other files than the code that refers to it: no address of
        theirs can be meant."""
        own = self.new.block_of(self._walked, FUNC)
        here, found = self.new.object_at(new), self.new.space.object_at(new)
        if not own or here is None or found is None:
            return False
        around = [here.start] + ([found[1]] if found[1] - new <= _NEAR else [])
        blocks = [self.new.block_of(at, OBJECT) for at in around]
        return all(block and block != own for block in blocks)

    @staticmethod
    def _ends_text(side: Side, address: int) -> bool:
        """Whether the zero at `address` is the end of a text."""
        if side.space.file_at(address - 1, 2) is None or _inside(side.object_at(address - 1)):
            return False
        last, end = side.read(address - 1, 2)
        return last >= 0x20 and not end

    @staticmethod
    def _is_writable(side: Side, address: int) -> bool:
        """By the program: what is relocated and then sealed is as constant as the rest."""
        file = side.space.file_at(address)
        return file is not None and file.section_of(address) is not None and not side.is_constant(address)

    def _nameless(self, new: int, old: int, size: int, owner: str) -> bool:
        if not self._holds(self.new, new) or not self._holds(self.old, old):
            return False
        self.queue(Pair("content", new, old, size, owner) if size != steps.TEXT else Pair("text", new, old, 0, owner))
        return True

    def _holds(self, side: Side, address: int) -> bool:
        file = side.space.file_at(address)
        section = file.section_of(address) if file is not None else None
        return section is not None and not section.flags & SHF_EXECINSTR

    def queue(self, pair: Pair) -> None:
        if _key(pair) not in self._met:
            self._met.add(_key(pair))
            self.waiting.append(pair)

    def forget(self, count: int) -> None:
        """What was queued after the first `count`: it belongs to something that is not the one looked for."""
        self._found_same.clear()
        while len(self.waiting) > count:
            self._met.discard(_key(self.waiting.pop()))

    def met_old(self) -> set[int]:
        """Addresses of the process that were walked, or are to be."""
        return {old for _, _, old in self._met}

    def met_new(self) -> set[int]:
        """Addresses of the new image that were walked, or are to be."""
        return {new for _, new, _ in self._met}

    # ---- pointers -----------------------------------------------------------------------------------------------

    def same_pointer(self, new: Pointer | None, old: Pointer | None, owner: str) -> bool:
        if new is None or old is None or new.kind != old.kind:
            return new is None and old is None
        if new.kind == "tls":
            return self.same_thread_local(new.address or 0, old.address or 0)
        if new.kind == "module" or new.name and new.name == old.name:
            return _same_version(new.version, old.version)
        if new.address is not None and old.address is not None:
            return self.same_place(new.address, old.address, owner)
        return bool(new.name and old.address is not None and new.name in self.old.names_at(old.address)
                    or old.name and new.address is not None and old.name in self.new.names_at(new.address))

    def same_thread_local(self, new: int, old: int) -> bool:
        """Two offsets in the block. New variables live in the reserve, where none has a name: each has its own place there."""
        mine, theirs = self.new.thread_local(new), self.old.thread_local(old)
        if mine is None or theirs is None:
            return False
        name = mine.symbol.name
        if theirs.symbol.name != RESERVE or name == RESERVE:
            return mine.offset == theirs.offset and same_name(name, theirs.symbol.name)
        if name in self.old.thread_local_names and self.new.thread_local_names[name] == 1 and not is_numbered(name):
            return False             # it is where it was
        place = old - mine.offset
        return self._has_room(mine.symbol, place, theirs.symbol) \
            and self._thread_locals.setdefault(mine.start, (place, mine.symbol.size))[0] == place

    def _has_room(self, new: Symbol, place: int, reserve: Symbol) -> bool:
        """Whether a new thread-local lies in the reserve, and no other one over it."""
        others = (p for start, p in self._thread_locals.items() if start != new.value)
        return reserve.value <= place <= reserve.value + reserve.size - new.size \
            and not any(place < at + size and at < place + max(new.size, 1) for at, size in others)

    def no_thread_local(self, new: int, old: int, begins: bool = False) -> bool:
        """Whether at these offsets in the block neither side has a variable; `begins`: none that begins there, since linkers
        put no other offset into an instruction of its own."""
        found = self.new.thread_local(new), self.old.thread_local(old)
        return all(place is None or begins and place.offset > 0 for place in found)

    # ---- code ---------------------------------------------------------------------------------------------------

    def code(self, new: int, old: int, size: int, owner: str) -> str:
        """Walk `size` bytes of code; returns the digest, equal on both sides. Raises Different."""
        self._walked = new
        try:
            return self._in_steps(new, old, size, owner) or self._one_by_one(new, old, size, owner)
        finally:
            self._walked = 0

    def _in_steps(self, new: int, old: int, size: int, owner: str) -> str:
        """The digest, or "" where something differs at first sight."""
        digest = hashlib.blake2b(b"%d:" % size, digest_size=16)
        step = _Step(self, new, old, size, owner)
        prepared = self.steps(new, size)
        try:
            for known, place in steps.references(prepared, self.old.space.read(old, size), old):
                if not (step.is_as(known, place) if known.reference is not None else step.is_odd_as(known, place)):
                    return ""
        except steps.Differs:
            return ""
        for known in prepared:
            digest.update(known.token)
        return digest.hexdigest()

    def _one_by_one(self, new: int, old: int, size: int, owner: str) -> str:
        digest = hashlib.blake2b(b"%d:" % size, digest_size=16)
        ours = decode(self.new.space.read(new, size), new)
        theirs = decode(self.old.space.read(old, size), old)
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
        if any(name.startswith(_DISTANCES) for name in self.new.names_at(new)):
            return self._distances(new, old, size, owner)
        ours, theirs = bytearray(self.new.read(new, size)), bytearray(self.old.read(old, size))
        digest = hashlib.blake2b(b"%d:" % size, digest_size=16)
        end = 0
        for at in self._words(new, old, ours, theirs):
            if at < end:
                continue
            mine, other = self.new.pointer(new + at), self.old.pointer(old + at)
            word = bytes(ours[at:at + 8]), bytes(theirs[at:at + 8])
            if self._same_word(mine, other, word, owner):
                digest.update(b"|%d" % at)
                ours[at:at + 8] = theirs[at:at + 8] = bytes(8)
                end = at + 8
            elif mine is not None or other is not None or self._both_refer(word):
                mine, other = mine or plain(word[0], self.new), other or plain(word[1], self.old)
                raise Different(f"at +{at:#x}: {self.say(self.new, mine)} there, {self.say(self.old, other)} here")
        if ours != theirs:
            at = next(i for i in range(size) if ours[i] != theirs[i])
            raise Different(f"at +{at:#x}: byte {ours[at]:#04x} there, {theirs[at]:#04x} here")
        digest.update(ours)
        return digest.hexdigest()

    def _distances(self, new: int, old: int, size: int, owner: str) -> str:
        """A table of distances from its start to constants, as clang makes them of tables of pointers."""
        digest = hashlib.blake2b(b"distances:%d" % size, digest_size=16)
        for at in range(0, size - 3, 4):
            one, two = (start + int.from_bytes(side.read(start + at, 4), "little", signed=True)
                        for side, start in ((self.new, new), (self.old, old)))
            if not self.same_place(one, two, owner):
                raise Different(f"at +{at:#x}: {self.say(self.new, one)} there, {self.say(self.old, two)} here")
        return digest.hexdigest()

    def _words(self, new: int, old: int, ours: bytearray, theirs: bytearray) -> list[int]:
        """Offsets of the words that may hold an address on either side, with relocations or without."""
        size = len(ours)
        found = {at - new for at in self.new.relocated(new, size)} | {at - old for at in self.old.relocated(old, size)}
        if self.new.absolute and any(ours) or ours != theirs:
            for at in range(-new % 8, size - 7, 8):
                word = bytes(ours[at:at + 8]), bytes(theirs[at:at + 8])
                if word[0] != word[1] or self._both_refer(word):
                    found.add(at)
        return sorted(found)

    def _both_refer(self, word: tuple[bytes, bytes]) -> bool:
        """Whether two words of absolute images may be addresses, equal ones of different things."""
        if not self.new.absolute:
            return False
        mine, other = (int.from_bytes(w, "little") for w in word)
        return self.new.may_be_address(mine) and self.old.may_be_address(other)

    def _same_word(self, mine: Pointer | None, other: Pointer | None, word: tuple[bytes, bytes], owner: str) -> bool:
        """Absolute images hold addresses that no relocation shows; equal ones may be those of other things."""
        one = mine or plain(word[0], self.new)
        two = other or plain(word[1], self.old)
        return one is not None and two is not None and self.same_pointer(one, two, owner)

    def nameless(self, pair: Pair) -> str:
        """Walk content without a symbol. Where its size is not known it ends with its text, or where the new image refers to
        the next thing. Raises Different."""
        if pair.kind == "text":
            return self.content(pair.new, pair.old, self._length(pair.new) + 1, pair.owner)
        if pair.size:
            return self.content(pair.new, pair.old, pair.size, pair.owner)
        if pair.new in self.tables():
            return self._distances(pair.new, pair.old, 4 * len(self.tables()[pair.new]), pair.owner)
        end = self._end(pair.new)
        first = self._entry(pair, 0)
        if first is not None and first[1] is not None:
            table = self._jump_table(pair, min(self._next_boundary(pair.new, end) - pair.new, _MOST))
            if table:
                return table
        if self._is_pointer_table(pair):
            limit = min(self._next_boundary(pair.new, end) - pair.new, _MOST)
            ends = (at for at in range(0, limit - 7, 8) if self._code_at(self.new, pair.new + at) is None)
            return self.content(pair.new, pair.old, next(ends, limit // 8 * 8), pair.owner)
        if self._ends_text(self.new, pair.new) and self._ends_text(self.old, pair.old):
            return self.content(pair.new, pair.old, 1, pair.owner)          # an empty text
        ours = self.new.read(pair.new, min(end - pair.new, _MOST))
        text = _TEXT.match(ours) if self.new.pointer(pair.new) is None else None
        size = min(self._next_boundary(pair.new, end) - pair.new, _MOST)
        size = max(self._without_padding(pair, ours[:size]), len(text[0]) if text else 1)
        return self.content(pair.new, pair.old, size, pair.owner)

    def _length(self, text: int) -> int:
        """Bytes before the first zero of the new image's."""
        ours = self.new.read(text, min(self._end(text) - text, _MOST))
        if 0 not in ours:
            raise Different("a text without an end")
        return ours.index(0)

    def _without_padding(self, pair: Pair, ours: bytes) -> int:
        """How many bytes are to be compared: zeros that align what follows in the new image may be missing where something else
        follows, or nothing."""
        held = self._to_the_end_of_an_address(pair.new, ours, len(ours.rstrip(b"\0")))
        held = max(held, len(ours) - _ALIGNMENT + 1, *(at + 8 - pair.new for at in self.new.relocated(pair.new, len(ours))), 0)
        if held == len(ours):
            return held
        is_image = self.old.space.file_at(pair.old) is self.old.space.image
        known = self.old.image_targets if is_image else self.old.payload_targets
        end = self.old.space.end_of(pair.old)
        ends = [] if end is None else [end]
        ends += known[bisect_left(known, pair.old + held):bisect_right(known, pair.old + len(ours))]
        return min((e - pair.old for e in ends if held <= e - pair.old < len(ours)), default=len(ours))

    def _to_the_end_of_an_address(self, start: int, ours: bytes, held: int) -> int:
        """The upper bytes of an address are zeros: in an absolute image no relocation tells that they are no padding."""
        first = (held - 1 + start % 8) // 8 * 8 - start % 8           # of the word that the last byte that is not zero lies in
        if not self.new.absolute or first < 0 or first + 8 > len(ours):
            return held
        return first + 8 if self.new.may_be_address(int.from_bytes(ours[first:first + 8], "little")) else held

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
            if places[1] is None or places[0].offset != places[1].offset or not self._same_function(
                    places[0], places[1], pair.owner):
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

    def _entry(self, pair: Pair, at: int) -> tuple[Place, Place | None] | None:
        """The places in code to which a word leads as a distance from the start of the table, on both sides; None if it leads to
        none in the new image."""
        one, two = (self._led_to(side, start, at) for side, start in ((self.new, pair.new), (self.old, pair.old)))
        return None if one is None else (one, two)

    @staticmethod
    def _led_to(side: Side, start: int, at: int) -> Place | None:
        if side.space.file_at(start + at, 4) is None:
            return None
        return side.function_at(start + int.from_bytes(side.read(start + at, 4), "little", signed=True))

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


def _same_version(new: str, old: str) -> bool:
    """Of a symbol of another image. A call of a side where it is no import asks for none."""
    return new == old or not new or not old


def _key(pair: Pair) -> tuple[str, int, int]:
    return f"{pair.kind}{pair.size}", pair.new, pair.old


def _inside(place: Place | None) -> bool:
    return place is not None and place.offset < place.symbol.size


def _clone_of(name: str) -> str:
    """A clone's name without its numbers, which the compiler gives anew in each compilation."""
    return _CLONENUMBER.sub("", name.partition("@")[0].removesuffix(".hr_new"))


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
        if BRANCH.match(mine.mnemonic) and mine.operands.startswith("0x") and other.operands.startswith("0x"):
            return self._branch(mine, other)
        if mine.data == other.data and not self._may_refer(mine, other):
            self.token = b"|" + mine.data
            return True
        return self._by_number(mine, other)

    def _branch(self, mine: Instruction, other: Instruction) -> bool:
        one, two = int(mine.operands, 16), int(other.operands, 16)
        opcode = steps.opcode_of(mine)
        if mine.data[:opcode] != other.data[:opcode]:
            return False
        self.token = b"|" + mine.data[:opcode] + steps.name_of(self.lock.new, one, self.new, self.size)
        return self._goes(one, two)

    def _goes(self, one: int, two: int) -> bool:
        if self._own(one, two) or self._stops(one, two) \
                or not self._is_own(one, two) and self.lock.same_place(one, two, self.owner):
            return True
        self.why = f"goes to {self.lock.say(self.lock.new, one)} there, to {self.lock.say(self.lock.old, two)} here"
        return False

    def is_as(self, known: steps.Step, place: int) -> bool:
        """Whether an instruction of these bytes that refers to `place` is the one of the new image."""
        r = known.reference
        assert r is not None
        return self._goes(r.target, place) if r.goes else self._refers(r.target, place, r.width)

    def is_odd_as(self, known: steps.Step, place: int) -> bool:
        mine = known.odd
        assert mine is not None
        found = decode(self.lock.old.space.read(place, mine.size), place)
        return len(found) == 1 and self.equal(mine, found[0])

    def _is_own(self, one: int, two: int) -> bool:
        return self.new <= one < self.new + self.size or self.old <= two < self.old + self.size

    def _own(self, one: int, two: int) -> bool:
        return self.new <= one < self.new + self.size and one - self.new == two - self.old

    def _stops(self, one: int, two: int) -> bool:
        """Whether both lead to where the code ends, and a trap lies there: what clang's -O0 makes of what is never reached."""
        places = (self.lock.new.space, one), (self.lock.old.space, two)
        return (one, two) == (self.new + self.size, self.old + self.size) and all(
            space.is_code(at) and space.read(at, 1) == _TRAP for space, at in places)

    def _by_place(self, mine: Instruction, other: Instruction) -> bool:
        """An operand relative to the instruction."""
        one, two = target_of(mine), target_of(other)
        if one is None or two is None or self.lock.new.is_module(one) or self.lock.old.is_module(two):
            return False                 # where a thread-local is asked for, the call belongs to it
        fields = field_of(mine, one - mine.at - mine.size), field_of(other, two - other.at - other.size)
        behind = steps.address_behind(mine, fields[0], self.lock.new)
        blanks = blanked(mine.data, fields[0]), blanked(other.data, fields[1])
        if behind is not None and fields[0] == fields[1]:
            number = int.from_bytes(other.data[-4:], "little")
            if not self._own(behind, number) and not self.lock.same_place(behind, number, self.owner):
                self.why = f"stores {self.lock.say(self.lock.new, behind)} there, {self.lock.say(self.lock.old, number)} here"
                return False
            blanks = blanks[0][:-4], blanks[1][:-4]
        if blanks[0] != blanks[1]:
            return False
        self.token = steps.token_of_place(mine, fields[0], one, self.lock.new, self.new, self.size)
        return self._refers(one, two, self._width(mine))

    def _width(self, mine: Instruction) -> int:
        return steps.width_of(mine, self.lock.new, self.new, self.size)

    def _refers(self, one: int, two: int, width: int) -> bool:
        if self._own(one, two):
            return True
        if self.lock.new.is_got(one) and self.lock.old.is_got(two):
            held = held_in(self.lock.new, one), held_in(self.lock.old, two)
            if self.lock.same_pointer(*held, self.owner):
                return True
            self.why = f"takes {self.lock.say(self.lock.new, held[0])} there, {self.lock.say(self.lock.old, held[1])} here"
            return False
        if self.lock.same_place(one, two, self.owner, width):
            return True
        self.why = f"refers to {self.lock.say(self.lock.new, one)} there, to {self.lock.say(self.lock.old, two)} here"
        return False

    # ---- numbers that are addresses, thread-local offsets, or source lines ----------------------------------------

    def _may_refer(self, mine: Instruction, other: Instruction) -> bool:
        if "fs:[0x" in mine.operands or self._is_offset(mine, other) or self._is_in_block(mine, other):
            return True
        return self.lock.new.absolute and any(map(self.lock.new.may_be_address, numbers(mine.operands)))

    def _is_offset(self, mine: Instruction, other: Instruction) -> bool:
        """Whether a number may be an offset from the thread pointer, which lies in a register."""
        return mine.at in self.lock.new.thread_offsets(self.new, self.size).pointer \
            or other.at in self.lock.old.thread_offsets(self.old, self.size).pointer

    def _is_in_block(self, mine: Instruction, other: Instruction) -> bool:
        """Whether a number may be an offset in the block of thread-locals, whose start lies in a register."""
        return mine.at in self.lock.new.thread_offsets(self.new, self.size).block \
            or other.at in self.lock.old.thread_offsets(self.old, self.size).block

    def _by_number(self, mine: Instruction, other: Instruction) -> bool:
        """Instructions that differ in numbers alone, each of which means the same."""
        if self._is_in_block(mine, other):          # of which the first byte has no number
            mine, other = (i._replace(operands=_AT_START.sub("[\\1 + 0]", i.operands)) for i in (mine, other))
        if NUMBER.sub("N", mine.operands) != NUMBER.sub("N", other.operands):
            return False
        one, two = numbers(mine.operands), numbers(other.operands)
        for a, b, is_distance in zip(one, two, may_be_offsets(mine.operands)):
            if not self._same_number(mine, other, a, b, is_distance):
                self.why = self.why or f"{_shown(mine, other)}"
                return False
        if not differ_in(mine.data, other.data, [(a, b) for a, b in zip(one, two) if a != b]):
            return False             # prefixes, of which the text says nothing
        self.token = steps.token_of_numbers(mine)
        return True

    def _same_number(self, mine: Instruction, other: Instruction, a: int, b: int, is_distance: bool) -> bool:
        lock = self.lock
        size = lock.new.tls_size, lock.old.tls_size
        x, y = signed(a), signed(b)
        fs = "fs:[" in mine.operands
        if -size[0] <= x < 0 and -size[1] <= y < 0 and (fs or is_distance and self._is_offset(mine, other)):
            x, y = x + size[0], y + size[1]
            is_none = lock.no_thread_local(x, y, begins="[" not in mine.operands and mine.mnemonic == "mov")
            return lock.same_thread_local(x, y) or not fs and a == b and is_none
        if 0 <= x < size[0] and 0 <= y < size[1] and is_distance and self._is_in_block(mine, other):
            return lock.same_thread_local(x, y) or x == y and lock.no_thread_local(x, y)
        if fs and (x < 0 or y < 0):
            return False
        if lock.new.absolute and lock.new.may_be_address(a) and lock.old.space.file_at(b) is not None:
            return self._own(a, b) or lock.same_place(a, b, self.owner, self._width(mine) if is_distance else 0)
        if a == b:
            return True
        if lock.is_noise(mine.at, other.at, a, b):
            lock.noise.append(f"{self.owner}: line {a} there, {b} here")
            return True
        return False

    # ---- what linkers make of one and the same instruction --------------------------------------------------------

    def equivalent(self, ours: list[Instruction], theirs: list[Instruction]) -> tuple[int, int] | None:
        """How many instructions of either side come to the same by relaxation (psABI §B.2, ELF TLS ABI §4.4); None: none do."""
        if has_idle_bits(ours[0]) or has_idle_bits(theirs[0]):
            return None
        for rule in (self._address_loaded, self._call_through_word, self._offset_loaded, self._thread_local_address):
            taken = rule(ours, theirs)
            if taken is not None:
                self.token = b"|" + rule.__name__.encode()
                return taken
        return None

    def _address_loaded(self, ours: list[Instruction], theirs: list[Instruction]) -> tuple[int, int] | None:
        """`lea S(%rip), %r`, `mov $S, %r` or `mov S@GOTPCREL(%rip), %r`."""
        one, two = loads(ours[0], self.lock.new), loads(theirs[0], self.lock.old)
        if one is None or two is None or one[0] != two[0] or ours[0].size != theirs[0].size:
            return None
        if self.lock.same_pointer(one[1], two[1], self.owner):
            return 1, 1
        self.why = f"loads {self.lock.say(self.lock.new, one[1])} there, {self.lock.say(self.lock.old, two[1])} here"
        return None

    def _call_through_word(self, ours: list[Instruction], theirs: list[Instruction]) -> tuple[int, int] | None:
        """`call *S@GOTPCREL(%rip)`, or `call S` with a prefix or a nop to fill six bytes."""
        one, two = goes(ours, self.lock.new), goes(theirs, self.lock.old)
        if one is None or two is None or one[0] != two[0]:
            return None
        if self.lock.same_pointer(one[1], two[1], self.owner):
            return one[2], two[2]
        self.why = f"goes to {self.lock.say(self.lock.new, one[1])} there, to {self.lock.say(self.lock.old, two[1])} here"
        return None

    def _offset_loaded(self, ours: list[Instruction], theirs: list[Instruction]) -> tuple[int, int] | None:
        """`mov x@gottpoff(%rip), %r` or `mov $x@tpoff, %r`."""
        one, two = offset_loaded(ours[0], self.lock.new), offset_loaded(theirs[0], self.lock.old)
        if one is None or two is None or one[0] != two[0] or ours[0].size != theirs[0].size:
            return None
        sizes = self.lock.new.tls_size, self.lock.old.tls_size
        return (1, 1) if self.lock.same_thread_local(one[1] + sizes[0], two[1] + sizes[1]) else None

    def _thread_local_address(self, ours: list[Instruction], theirs: list[Instruction]) -> tuple[int, int] | None:
        """A call of __tls_get_addr, or what it is relaxed to: the same number of bytes, the address in %rax."""
        one, two = tls_address(ours, self.lock.new), tls_address(theirs, self.lock.old)
        if one is None or two is None or one[1:] != two[1:] and one[1] != two[1]:
            return None
        if isinstance(one[0], int) and isinstance(two[0], int):
            return (one[2], two[2]) if self.lock.same_thread_local(one[0], two[0]) else None
        return (one[2], two[2]) if one[0] == two[0] else None         # None: the block itself, in the local dynamic model
