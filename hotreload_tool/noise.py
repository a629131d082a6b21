"""Noise: functions that differ only in the numbers of their own source lines, or in the time and place of compilation.

An edit that adds a line changes every function below it that asserts or logs with `__LINE__`. Nothing that such a function
does has changed, so its old code may stay. The old code is known as linked (from the image, or the payload that brought
it), the new as compiled; they are the same if linking the new code where the old one lies would give the old bytes, but for

- immediates that a call takes as an argument, and numbers in the text of a string, that equal the source line of the
  instruction, in both versions;
- strings that differ only in `__DATE__` and `__TIME__` (the new ones being those of the compilation), or only in the
  directory that the compiler ran in.

In doubt the answer is no: a function that is replaced without need does no harm.
"""
from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from . import arch, contents, debuginfo, elf, heads, mapped, names, unwind
from .baseline import Store
from .dwarf import DebugInfoError
from .elf import Elf, ElfError, Rela, Section, Symbol
from .lines import LineTable
from .live import LiveData, LiveFunction, LiveState
from .plan import Binding, IsNoise
from .survey import Part, Survey, survey

_DATE = re.compile(rb"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 1-3]\d \d{4}\b")
_TIME = re.compile(rb"\b\d\d:\d\d:\d\d\b")
_LATE = timedelta(minutes=10)      # between a compiler's start, which is __TIME__, and its object's time of change
_MOST = 1 << 16                    # bytes of one string, table or function part that are compared
_MOST_PARTS = 4096                 # of one function, with all that only it refers to


_TEXT = re.compile(rb"[\t\n\r -\xff]+\0+")
_NUMBER = re.compile(rb"\d+")


class _Different(Exception):
    """Not noise. The message says why, for tests and people who look into it."""


_DAMAGE = (_Different, ElfError, unwind.UnwindError, DebugInfoError, struct.error, IndexError)


class Target(NamedTuple):
    """What a name of a new object is in the process."""
    address: int               # image-relative; for thread-locals the offset from the thread pointer
    thread_local: bool = False


Resolve = Callable[[str], Target | None]


def judge(store: Store, live: LiveState, objects: Mapping[str, Path]) -> IsNoise:
    """What `make_plan` asks. `objects`: the new objects' files by name. Reads a file when it is first needed, and once."""
    @functools.cache
    def new(obj: str) -> NewObject:
        return NewObject(objects[obj])

    @functools.cache
    def old(generation: int) -> OldCode:
        file = store.linked(live, generation)
        return OldCode(file, elsewhere) if generation else store.derived(file, OldCode)

    def elsewhere(address: int) -> OldCode:
        """The file that lies at an address: strings that lived already are not in the payload that uses them (literals.py)."""
        homes = [p.generation for p in live.payloads if not p.transient and p.start <= address < p.end]
        return old(homes[-1] if homes else 0)

    def asked(obj: str, was: LiveFunction | LiveData, binding: Callable[[str], Binding | None]) -> bool:
        try:
            if isinstance(was, LiveData):
                # What a patch wrote to it since is in that patch, and not worth looking for.
                return was.generation == 0 and was.digest in live.linked_digests(was.name) and is_same_data(
                    was.name, new(obj), old(0), was.address, was.size, lambda name: _target(live, binding(name)))
            return was.body is not None and is_noise(was.name, new(obj), old(was.generation), was.body, was.size,
                                                     lambda name: _target(live, binding(name)))
        except (ElfError, struct.error):
            return False        # a file that cannot be read is refused elsewhere, with a reason

    return asked


def _target(live: LiveState, binding: Binding | None) -> Target | None:
    if binding is None or binding.kind != "tls":
        return None if binding is None else Target(binding.address)
    cpu, tls = arch.for_machine(live.facts.machine), live.facts.tls
    if cpu is None or tls is None or live.kind == "shared":
        return None
    return Target(cpu.tls_offset(binding.address, tls.size, tls.align), True)


class OldCode:
    """A linked file, image or payload, that holds the old code of functions."""

    def __init__(self, file: Elf, elsewhere: Callable[[int], OldCode] | None = None) -> None:
        self.file = file
        self._elsewhere = elsewhere
        self._pointers: dict[int, dict[int, contents.Pointer]] = {}      # section -> address -> what is put there
        self._allocated = [s for s in file.sections if s.flags & elf.SHF_ALLOC and not s.flags & elf.SHF_TLS]
        self._lines: LineTable | None = None
        self._lsdas: dict[int, int] | None = None
        self.cpu = arch.NATIVE

    @functools.cached_property
    def directories(self) -> set[str]:
        return _directories(self.file)

    @functools.cached_property
    def words_of_calls(self) -> dict[int, set[str]]:
        """Slots and other words that calls go through (calls.py) -> their names for callers; also those that lie elsewhere."""
        found: dict[int, set[str]] = {}
        for symbol in self.file.symbols:
            if symbol.defined and symbol.name.endswith(names.CALL_SUFFIX):
                found.setdefault(symbol.value, set()).add(symbol.name)
        return found

    def holds(self, address: int) -> bool:
        return any(section.addr <= address < section.addr + section.size for section in self._allocated)

    def section(self, address: int) -> Section:
        for section in self._allocated:
            if section.addr <= address < section.addr + section.size:
                return section
        raise _Different(f"nothing lies at {address:#x}")

    def read(self, address: int, size: int) -> bytes:
        section = self.section(address)
        at = address - section.addr
        if section.type == elf.SHT_NOBITS or at + size > section.size:
            raise _Different(f"no {size} bytes lie at {address:#x}")
        return mapped.piece(section, at, size)

    def string(self, address: int) -> bytes:
        if self._elsewhere is None or self.holds(address):
            return self._own_string(address)
        return self._elsewhere(address)._own_string(address)

    def _own_string(self, address: int) -> bytes:
        section = self.section(address)
        at = address - section.addr
        end = mapped.find(section, b"\0", at, at + _MOST)
        if section.type == elf.SHT_NOBITS or end < 0:
            raise _Different(f"no string lies at {address:#x}")
        return mapped.piece(section, at, end - at)

    def pointer(self, address: int) -> contents.Pointer | int:
        """What the 8 bytes at `address` hold when the file is loaded."""
        section = self.section(address)
        known = self._pointers.get(section.index)
        if known is None:
            found = contents.read(self.file, section.addr, section.size).pointers
            known = self._pointers[section.index] = {section.addr + p.offset: p for p in found}
        return known[address] if address in known else int.from_bytes(self.read(address, 8), "little")

    def lines(self, start: int, address: int) -> frozenset[int]:
        if self._lines is None:
            self._lines = _line_table(self.file, linked=True)
        lines = self._lines
        return frozenset().union(*(lines.of_image(start + room, address) for room in (0, self.cpu.HEAD_ROOM)))

    def lsda(self, start: int) -> int | None:
        """The exception table of the code that starts at `start`."""
        if self._lsdas is None:
            self._lsdas = {}
            for section in self.file.sections:
                if section.name == ".eh_frame":
                    self._lsdas.update(_linked_lsdas(section))
        return self._lsdas.get(start)


def _linked_lsdas(section: Section) -> dict[int, int]:
    found = {}
    for fde in unwind.parse(section.data, []):
        if fde.lsda_offset is not None:
            start = _encoded(section, fde.pc_begin_offset, fde.cie.fde_encoding)
            found[start] = _encoded(section, fde.lsda_offset, fde.cie.lsda_encoding)
    return found


def _encoded(section: Section, at: int, encoding: int) -> int:
    """A pointer of `.eh_frame`: absolute or PC-relative (LSB Core 5.0 §10.5.1)."""
    kind = {0x00: "<Q", 0x03: "<I", 0x04: "<Q", 0x0B: "<i", 0x0C: "<q"}.get(encoding & 0x0F)
    if kind is None or encoding & 0x70 not in (0, 0x10):
        raise _Different(f"a pointer of encoding {encoding:#x} in {section.name}")
    value = int(struct.unpack(kind, mapped.piece(section, at, struct.calcsize(kind)))[0])
    return value + section.addr + at if encoding & 0x10 else value


def _line_table(file: Elf, linked: bool) -> LineTable:
    for section in file.sections:
        if section.name == ".debug_line" and not section.flags & elf.SHF_COMPRESSED:
            if linked:
                return LineTable(section.data)
            places = {}
            for rela in file.relocations(section):
                symbol = file.symbols[rela.symbol]
                places[rela.offset] = (str(symbol.shndx), symbol.value + rela.addend)
            return LineTable(section.data, places)
    return LineTable(b"")


def _directories(file: Elf) -> set[str]:
    try:
        return debuginfo.directories(debuginfo.debug_sections(file.sections, file.symbols))
    except DebugInfoError:
        return set()


class NewObject:
    """An instrumented object, with what only the comparison needs."""

    def __init__(self, path: Path) -> None:
        self.file = elf.read(path)
        self.made = datetime.fromtimestamp(path.stat().st_mtime)
        cpu = arch.for_machine(self.file.machine)
        if cpu is None:
            raise ElfError(f"{path}: made for another machine")
        self.cpu: ModuleType = cpu
        self._by_name = {s.name: s for s in self.file.symbols if s.name and s.defined}
        self._lsdas: dict[tuple[int, int], Rela] | None = None

    @functools.cached_property
    def survey(self) -> Survey:
        return survey(self.file, self.cpu, "new")

    @functools.cached_property
    def lines(self) -> LineTable:
        return _line_table(self.file, linked=False)

    @functools.cached_property
    def directories(self) -> set[str]:
        return _directories(self.file)

    def body(self, name: str) -> tuple[Symbol, int]:
        """The code of the function whose unique name is `name`, and of how many bytes at its start its slot leads past."""
        slot = self._by_name.get(name + names.SLOT_SUFFIX)
        if slot is not None:
            relas = [r for r in self.file.relocations(self.file.sections[slot.shndx]) if r.offset == slot.value]
            public = self._by_name.get(name)
            if len(relas) == 1 and public is not None:
                found, head = heads.code_of(self.file, relas[0], public)
                if found.defined and found.size:
                    return found, head
        raise _Different(f"the object has no code of {name}")

    def defined(self, name: str) -> Symbol:
        found = self._by_name.get(name)
        if found is None or found.shndx >= len(self.file.sections):
            raise _Different(f"the object does not define {name}")
        return found

    def lsda(self, section: int, offset: int) -> Rela | None:
        if self._lsdas is None:
            self._lsdas = {}
            for frame in self.file.sections:
                if frame.name == ".eh_frame" and frame.flags & elf.SHF_ALLOC:
                    for fde in unwind.parse(frame.data, self.file.relocations(frame)):
                        if fde.lsda is not None and fde.pc_begin is not None:
                            symbol = self.file.symbols[fde.pc_begin.symbol_index]
                            self._lsdas[symbol.shndx, symbol.value + fde.pc_begin.addend] = Rela(*fde.lsda)
        return self._lsdas.get((section, offset))


def is_noise(name: str, new: NewObject, old: OldCode, old_body: int, old_size: int, resolve: Resolve) -> bool:
    """Whether function `name` (unique name) of `new` is noise beside the code of `old_size` bytes at `old_body`.

    `resolve` tells what another name of the object is in the process. Raises nothing for files of any content."""
    return why_not(name, new, old, old_body, old_size, resolve) is None


def why_not(name: str, new: NewObject, old: OldCode, old_body: int, old_size: int, resolve: Resolve) -> str | None:
    """The first reason why it is a real change; None if it is noise."""
    try:
        body, head = new.body(name)
        if body.size - head != old_size:
            raise _Different("its size changed")
        _Comparison(new, old, resolve).function(body, old_body, head)
    except _DAMAGE as e:
        return str(e) or type(e).__name__
    return None


class _Place(NamedTuple):
    """An instruction in both versions."""
    section: Section       # of the new object
    at: int                # offset in it
    base: int              # where the old code has the start of that section
    address: int           # of the old instruction


def is_same_data(name: str, new: NewObject, old: OldCode, address: int, size: int, resolve: Resolve) -> bool:
    """The same for a variable or constant of `size` bytes at `address`, whose content differs."""
    try:
        symbol = new.defined(name)
        if symbol.size != size:
            return False
        section = new.file.sections[symbol.shndx]
        _Comparison(new, old, resolve).data(section, symbol.value, symbol.value + size, address)
    except _DAMAGE:
        return False
    return True


@dataclass
class _Comparison:
    """Two versions of one function. Every method returns if they are the same so far, and raises _Different if not."""
    new: NewObject
    old: OldCode
    resolve: Resolve
    _places: dict[tuple[int, int], int] = field(default_factory=dict)   # (section, offset) of what was compared -> old address

    def function(self, body: Symbol, address: int, head: int = 0) -> None:
        """`address`: of the old code behind its head, which has as many bytes."""
        self.code(self.new.file.sections[body.shndx], body.value + head, body.value + body.size, address, head)

    # ---- code -----------------------------------------------------------------------------------

    def code(self, section: Section, start: int, end: int, address: int, head: int = 0) -> None:
        """The code at `start` … `end` of a section of the new object, against the code at `address`."""
        known = self._places.get((section.index, start))
        if known is not None or len(self._places) >= _MOST_PARTS:
            if known != address:
                raise _Different("code that lies in two places")
            return
        self._places[section.index, start] = address
        theirs, ours = self.old.read(address, end - start), section.data[start:end]
        if len(ours) != len(theirs) or len(ours) > _MOST:
            raise _Different("code of another size")
        relas = {r.offset: r for r in self.new.file.relocations(section) if start <= r.offset < end}
        self._instructions(section, start, ours, theirs, relas, address)
        self._exceptions(section, start - head, address - head)

    def _instructions(self, section: Section, start: int, ours: bytes, theirs: bytes, relas: dict[int, Rela],
                      address: int) -> None:
        self._could_be_lines(start, ours, theirs, relas)
        pending = sorted(relas)
        done = 0
        for at, size in self.new.cpu.instructions(ours):
            done = at + size
            mine = []
            while pending and pending[0] < start + done:
                mine.append(relas[pending.pop(0)])
            if mine or ours[at:done] != theirs[at:done]:
                place = _Place(section, start + at, address - start, address + at)
                self._instruction(place, ours[at:done], theirs[at:done], mine)
        if done != len(ours) or pending:
            raise _Different("code that cannot be decoded")

    def _could_be_lines(self, start: int, ours: bytes, theirs: bytes, relas: dict[int, Rela]) -> None:
        """Most edits change an instruction, and it takes no disassembler to see that: to load it takes longer than to patch."""
        cpu = self.new.cpu
        linked = {r.offset - start + i for r in relas.values() for i in range(-2, cpu.width(r.type))}
        if any(mine != other and at not in linked and not cpu.may_be_in_argument(ours, at)
               for at, (mine, other) in enumerate(zip(ours, theirs, strict=True))):
            raise _Different("another instruction")

    def _instruction(self, place: _Place, ours: bytes, theirs: bytes, relas: list[Rela]) -> None:
        blanked = bytearray(ours)
        for rela in relas:
            width = self.new.cpu.width(rela.type)
            field_at = rela.offset - place.at
            relaxed = self._reference(place, rela, ours, theirs, field_at)
            if relaxed:
                blanked[field_at - 2] = theirs[field_at - 2]
            blanked[field_at:field_at + width] = theirs[field_at:field_at + width]
        if bytes(blanked) != theirs:
            self._line_numbers(place, bytes(blanked), theirs)

    def _reference(self, place: _Place, rela: Rela, ours: bytes, theirs: bytes, at: int) -> bool:
        """Compares what one field refers to. Returns whether the linker made an address of a load from the GOT."""
        cpu, width = self.new.cpu, self.new.cpu.width(rela.type)
        value = int.from_bytes(theirs[at:at + width], "little", signed=True)
        after = place.address + len(theirs)       # where the next instruction is: what PC-relative fields count from
        if rela.type in cpu.PC_RELATIVE:
            self._target(place.section, rela, after + value, rela.addend + len(ours) - at, place)
        elif rela.type in cpu.ABSOLUTE:
            if self.old.file.type != elf.ET_EXEC and width != 8:
                raise _Different("an absolute address")
            self._target(place.section, rela, value, rela.addend, place)
        elif rela.type in cpu.GOT:
            name = self._named(rela)
            if name is None or rela.addend != -cpu.PC_BIAS or at + width != len(ours):
                raise _Different("an entry of the GOT for something without a name")
            if at >= 2 and (ours[at - 2], theirs[at - 2]) == (0x8B, 0x8D):       # mov foo@GOTPCREL(%rip) -> lea foo(%rip)
                self._is(name, after + value, 0)
                return True
            self._got_entry(name, after + value)
        elif rela.type == cpu.TLS_LOCAL_EXEC:
            name = self._named(rela)
            found = self.resolve(name) if name else None
            if found is None or not found.thread_local or found.address + rela.addend != value:
                raise _Different("another thread-local")
        else:
            raise _Different(f"a relocation of type {rela.type}")
        return False

    def _named(self, rela: Rela) -> str | None:
        """The name under which a target lives in the process; None for what belongs to the function alone."""
        symbol = self.new.file.symbols[rela.symbol]
        return symbol.name if symbol.binding != elf.STB_LOCAL and symbol.name else None

    def _target(self, section: Section, rela: Rela, address: int, addend: int, place: _Place | None = None) -> None:
        """`rela` must mean what lies at `address` of the old file. `addend` counts from the target's symbol; `place` is set if
        an instruction refers to it."""
        name = self._named(rela)
        if name is not None:
            self._is(name, address, addend)
            return
        symbol = self.new.file.symbols[rela.symbol]
        if not symbol.defined:
            raise _Different("a target that is nowhere")
        home = self.new.file.sections[symbol.shndx]
        target = self.new.survey.target(section, rela)
        if target.part is None or not home.flags & elf.SHF_ALLOC:
            raise _Different("a target that is nowhere")
        self.part(target.part, symbol.value + addend, address, place)

    def _is(self, name: str, address: int, addend: int) -> None:
        found = self.resolve(name)
        if found is not None and not found.thread_local and found.address + addend == address:
            return
        if addend == 0 and name in self.old.words_of_calls.get(address, ()):
            return
        if addend == 0 and (found is None or found.address != address) and self._called_through_plt(name, address):
            return
        raise _Different(f"{name} is not what the old code refers to")

    def _called_through_plt(self, name: str, address: int) -> bool:
        """Whether a PLT entry lies at `address` that jumps to the library function `name`."""
        if not self.old.section(address).name.startswith(".plt"):
            return False
        jump = re.match(rb"(?:\xf3\x0f\x1e\xfa)?\xf2?\xff\x25(....)", self.old.read(address, 12), re.DOTALL)
        if jump is None:
            return False
        slot = address + jump.end() + int.from_bytes(jump[1], "little", signed=True)
        held = self.old.pointer(slot)
        return isinstance(held, contents.Pointer) and held.symbol is not None and _unversioned(held.symbol) == name

    def _got_entry(self, name: str, slot: int) -> None:
        held = self.old.pointer(slot)
        if isinstance(held, contents.Pointer) and held.symbol is not None:
            same = _unversioned(held.symbol) == name and held.addend == 0
        else:
            found = self.resolve(name)
            same = found is not None and found.address == (held if isinstance(held, int) else held.addend)
        if not same:
            raise _Different(f"{name} is not what the old code loads")

    # ---- what only this function refers to ------------------------------------------------------------

    def part(self, part: Part, position: int, address: int, place: _Place | None) -> None:
        """`position`, in the section of an anonymous part of the new object, against `address`."""
        section = part.section
        if part.is_code:
            self._code_part(part, position, address)
        elif section.flags & elf.SHF_MERGE and section.flags & elf.SHF_STRINGS and section.entsize == 1:
            self._string(section, position, address, place)
        elif not part.start <= position < part.end or part.end - part.start > _MOST or _is_state(section):
            raise _Different("data that is reached in another way")
        else:
            self.data(section, part.start, part.end, address - (position - part.start), place)

    def _code_part(self, part: Part, position: int, address: int) -> None:
        """A place in code: in what is being compared already, or in a part that the compiler split off or cloned."""
        start, end = part.start, part.end
        known = self._places.get((part.section.index, start))
        if known is None and not part.symbols:
            raise _Different("code without a name")
        if known is None:
            self.code(part.section, start, end, address - (position - start))
        elif known + position - start != address:
            raise _Different("a jump to another place")

    def _string(self, section: Section, position: int, address: int, place: _Place | None) -> None:
        end = section.data.find(b"\0", position)
        ours, theirs = section.data[position:end], self.old.string(address)
        if end < 0:
            raise _Different("a string without an end")
        if ours != theirs:
            self._text(ours, theirs, place)

    def _text(self, ours: bytes, theirs: bytes, place: _Place | None) -> None:
        """Two strings that differ."""
        if same_but_time(ours, theirs, self.new.made) or self._same_but_directory(ours, theirs):
            return
        if place is None or _NUMBER.sub(b"0", ours) != _NUMBER.sub(b"0", theirs):
            raise _Different("another string")
        # "file.c:12", and asserts within asserts
        for mine, other in zip(_NUMBER.findall(ours), _NUMBER.findall(theirs)):
            if mine != other:
                self._lines(place, int(mine), int(other))

    def _same_but_directory(self, ours: bytes, theirs: bytes) -> bool:
        """Whether all that differs is the directory in which the compiler ran, at the start of a path."""
        for mine in self.new.directories:
            start = mine.encode(errors="surrogateescape") + b"/"
            for other in self.old.directories if ours.startswith(start) else ():
                if theirs == other.encode(errors="surrogateescape") + b"/" + ours[len(start):]:
                    return True
        return False

    def data(self, section: Section, start: int, end: int, address: int, place: _Place | None = None) -> None:
        """A constant or a table, with references to code and to other constants; or a string, where those are not merged."""
        known = self._places.get((section.index, start))
        if known is not None or len(self._places) >= _MOST_PARTS:
            if known != address:
                raise _Different("data that lies in two places")
            return
        self._places[section.index, start] = address
        ours, cpu = bytearray(section.data[start:end]), self.new.cpu
        theirs = bytearray(self.old.read(address, end - start))
        for rela in self.new.file.relocations(section):
            if not start <= rela.offset < end:
                continue
            at, width = rela.offset - start, cpu.width(rela.type)
            if rela.type == cpu.R_PC32:
                value = int.from_bytes(theirs[at:at + 4], "little", signed=True)
                self._table_entry(section, rela, address, address + at + value, at)
            elif rela.type == cpu.ABSOLUTE_POINTER:
                self._pointer(section, rela, address + at)
            elif rela.type in cpu.ABSOLUTE_32 and self.old.file.type == elf.ET_EXEC:
                self._target(section, rela, int.from_bytes(theirs[at:at + 4], "little"), rela.addend)
            else:
                raise _Different(f"a relocation of type {rela.type} in data")
            ours[at:at + width] = theirs[at:at + width] = bytes(width)
        if ours != theirs:
            if not _TEXT.fullmatch(ours):
                raise _Different("another constant")
            self._text(bytes(ours), bytes(theirs), place)

    def _table_entry(self, section: Section, rela: Rela, table: int, value: int, at: int) -> None:
        """A distance in a table. Jump tables count from the table's start, so that the addend holds the entry's offset."""
        name = self._named(rela)
        if name is not None:
            self._is(name, value, rela.addend)
            return
        symbol = self.new.file.symbols[rela.symbol]
        home, position = self.new.file.sections[symbol.shndx], symbol.value + rela.addend
        for distance in ((at, 0) if home.flags & elf.SHF_EXECINSTR else (0,)):
            part = self.new.survey.covering(home, position - distance)
            if part is not None and part.is_code:
                self._code_part(part, position - distance, value - distance)
                return
        raise _Different("a table of distances to data")

    def _pointer(self, section: Section, rela: Rela, address: int) -> None:
        held = self.old.pointer(address)
        name = self._named(rela)
        if isinstance(held, contents.Pointer) and held.symbol is not None:
            if name != _unversioned(held.symbol) or held.addend != rela.addend:
                raise _Different("another pointer")
            return
        self._target(section, rela, held if isinstance(held, int) else held.addend, rela.addend)

    def _exceptions(self, section: Section, start: int, address: int) -> None:
        ours, theirs = self.new.lsda(section.index, start), self.old.lsda(address)
        if ours is None and theirs is None:
            return
        if ours is None or theirs is None:
            raise _Different("exceptions are handled by one version only")
        symbol = self.new.file.symbols[ours.symbol]
        home = self.new.file.sections[symbol.shndx]
        position = symbol.value + ours.addend
        part = self.new.survey.chunk(home, position)
        self.data(home, position, min(part.end, home.size), theirs)

    # ---- lines ------------------------------------------------------------------------------------

    def _line_numbers(self, place: _Place, ours: bytes, theirs: bytes) -> None:
        """The two instructions must differ in an immediate alone, each its own line."""
        before, after = _argument(self.new.cpu, theirs), _argument(self.new.cpu, ours)
        if before is None or after is None or before.rest != after.rest:
            raise _Different("another instruction")
        self._lines(place, after.value, before.value)

    def _lines(self, place: _Place, new: int, old: int) -> None:
        if new not in self.new.lines.of_object(str(place.section.index), place.at):
            raise _Different(f"{new} is not the line of the new code")
        if old not in self.old.lines(place.base, place.address):
            raise _Different(f"{old} is not the line of the old code")


def _is_state(section: Section) -> bool:
    return bool(section.flags & elf.SHF_WRITE) and not section.name.startswith(".data.rel.ro")


class _Argument(NamedTuple):
    value: int
    rest: bytes         # the instruction without the immediate


def _argument(cpu: ModuleType, code: bytes) -> _Argument | None:
    """The immediate of an instruction that passes it to a call, in a register or on the stack; None for all others."""
    decoded: Any = cpu.argument(code)
    if decoded is None:
        return None
    value, at, size = decoded
    return _Argument(value, code[:at] + bytes(size) + code[at + size:])


def _unversioned(symbol: str) -> str:
    return symbol.partition("@")[0]


def same_but_time(ours: bytes, theirs: bytes, made: datetime) -> bool:
    """Whether two strings differ only in __DATE__ and __TIME__, where ours are those of a compilation that ended at `made`
    (local time, which is what compilers take)."""
    for pattern in (_DATE, _TIME):
        mine, others = pattern.findall(ours), pattern.findall(theirs)
        if len(mine) != len(others):
            return False
        for text, other in zip(mine, others):
            if text != other and not _is_time_of(text, made):
                return False
    blank = [_TIME.sub(b"T", _DATE.sub(b"D", text)) for text in (ours, theirs)]
    return blank[0] == blank[1] and ours != theirs


def _is_time_of(text: bytes, made: datetime) -> bool:
    words = text.decode("ascii", "replace")
    try:
        if ":" not in words:
            day = datetime.strptime(" ".join(words.split()), "%b %d %Y").date()
            return day in (made.date(), (made - _LATE).date())
        clock = datetime.strptime(words, "%H:%M:%S").time()
    except ValueError:
        return False
    begun = datetime.combine(made.date(), clock)
    return any(timedelta(seconds=-1) <= made - moment <= _LATE for moment in (begun, begun - timedelta(days=1)))
