"""What a payload does once it is in a process, as far as that can be told from its file: the judge of the verifier's answers.

It reads the file as runtime/payload.c does (program headers, relocations in order, tables), and it asks no symbol of the
mutant what there is: which bytes count is told by the original. The rest acts on nobody: padding between functions and
objects, headers of sections, symbols and debug information, which the agent never reads.
"""
from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

from hotreload_tool import abi, names
from hotreload_tool.payload import NEW_SUFFIX
from hotreload_tool.verify import frames, handlers, linked, lockstep, redirects, space, tables, updates
from hotreload_tool.verify.side import Side

_ALLOC, _EXEC = linked.SHF_ALLOC, linked.SHF_EXECINSTR
# Only ld.so's (of .got what no relocation fills in), or read by the agent on its way and compared as what comes of them.
_METADATA = (".hr.head", ".hash", ".gnu.hash", ".dynsym", ".dynstr", ".gnu.version", ".gnu.version_r", ".rela.dyn", ".rela.plt",
             ".dynamic", ".eh_frame", ".gcc_except_table", ".got", ".got.plt")
_TEXT = re.compile(rb"[\t\n\r\x1b -\xff]{2,}\0")


class Original:
    """A good payload, to which mutants are compared."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.file = linked.Linked(data, "original")
        self.code = sorted({(s.value, s.value + s.size) for s in self.file.symbols if s.type == linked.FUNC and s.size
                            and s.defined and self.file.executable(s.value)})
        self.acts = effect(self.file, self.ranges, self.code)

    def acts_like(self, data: bytes) -> bool:
        """Whether the payload does the same. One that cannot be read does something else."""
        try:
            return effect(linked.Linked(data, "mutant"), self.ranges, self.code) == self.acts
        except (linked.Unreadable, lockstep.Different, struct.error, IndexError, ValueError, OverflowError):
            return False

    @cached_property
    def ranges(self) -> list[tuple[int, int]]:
        """(address, bytes) of all that may matter."""
        read = tables.Payload(self.file)
        found = [place for name, place in read.spans.items() if name != "eh_frame"]
        found += [(at, u.size) for u in read.updates for at in (u.old_content, u.new_content)]
        for section in self.file.sections:
            if section.flags & _ALLOC and section.size and section.name not in _METADATA:
                found += [(s, e - s) for s, e in self._of_section(section)]
        return sorted(set(found))

    @cached_property
    def referenced(self) -> list[int]:
        """What code and pointers of the payload lead to. Sections of strings come along whole, needed or not."""
        found = {r.addend for r in self.file.relocations}
        for start, end in self.code:
            found.update(target for _, _, target, _ in redirects._targets(self.file.read(start, end - start), start))
        return sorted(found)

    def _of_section(self, section: linked.Section) -> Iterator[tuple[int, int]]:
        named = sorted({(s.value, s.value + s.size) for s in self.file.symbols if s.size and s.defined
                        and section.address <= s.value < section.end and not self._is_copied_from(s)})
        yield from ((start, self._end_of_jump(start) or end) for start, end in named)
        if section.flags & _EXEC:
            yield from self._jumps(section)
        elif not section.nobits:
            starts = {a for a in self.referenced if section.address <= a < section.end} | {s for s, _ in named}
            for at, following in pairwise(sorted(starts | {section.end})):
                if not any(start <= at < end for start, end in named):
                    yield self._nameless(at, following)

    def _is_copied_from(self, symbol: linked.Symbol) -> bool:
        """Of the tables, and of new content for living objects, those parts count that something points to."""
        return symbol.name == names.PAYLOAD_SYMBOL or symbol.type != linked.FUNC and any(
            s.name.endswith(NEW_SUFFIX) for s in self.file.by_address.get(symbol.value, []))

    def _nameless(self, start: int, following: int) -> tuple[int, int]:
        """Text to its end; anything else up to what follows, without padding."""
        held = self.file.read(start, following - start)
        text = _TEXT.match(held)
        return start, start + (text.end() if text else min(len(held.rstrip(b"\0")) + 1, len(held)))

    def _jumps(self, section: linked.Section) -> Iterator[tuple[int, int]]:
        """Code that is in no function is run by nobody, but for the jumps of the procedure linkage table through words that
        relocations fill in."""
        for at in range(section.address, section.end):
            if end := self._end_of_jump(at):
                yield at, end

    def _end_of_jump(self, at: int) -> int:
        """Where a jump through a relocated word at `at` ends, behind which nobody comes; 0 if there is none."""
        if not self.file.executable(at) or space.stub_slot(self.file, at) not in self.file.relocation_at:
            return 0
        load = self.file.load_of(at)
        assert load is not None
        return at + self.file.read(at, min(16, load.end - at)).index(b"\xff\x25") + 6


def effect(file: linked.Linked, ranges: list[tuple[int, int]], code: list[tuple[int, int]]) -> tuple[object, ...]:
    """Segments as they are mapped, header and tables, memory of these ranges, what relocations write, unwinding through
    that code."""
    read = tables.Payload(file)
    made = dict(_relocated(file))
    start, size = read.spans.get("updates", (0, 0))
    places = range(start + 8, start + size, abi.UPDATE.size)     # of words that say where old content is, itself compared
    updated = [(u.address, updates.content(file, u.old_content, u.size), *u[2:]) for u in read.updates]
    loads = [(s.flags & 7, s.address, -(-s.end // 4096)) for s in file.loads]
    return (loads, dataclasses.astuple(read.header), read.redirects, read.parts, updated, read.module_words,
            list(_unwinding(file, read, code)), read.tables["init_array"],
            {at: what for at, what in made.items() if at not in places},
            [_loaded(file, made, at, size) for at, size in ranges])


def _unwinding(file: linked.Linked, read: tables.Payload, code: list[tuple[int, int]]) -> Iterator[object]:
    """By what each entry of the table says: linkers and compilers pad them."""
    start, size = read.unwind
    side = Side(space.Space(file))
    for frame in frames.read(file.read(start, size), start)[0] if size else []:
        if any(frame.start < end and begin < frame.end for begin, end in code):
            table = handlers._table(side, frame.table) if frame.table is not None else None
            if table is not None and not table.types:
                table.indirect = False               # says how the types are found, of which there are none
            yield frame.start, frame.size, frame.rules, frame.common.rules, frame.common.personality, table


def _relocated(file: linked.Linked) -> Iterator[tuple[int, object]]:
    """(where, what) in the order in which the agent writes."""
    for r in file.relocations:
        if r.type == tables.R_RELATIVE:
            yield r.offset, r.addend
        elif r.type == tables.R_DTPMOD64:
            yield r.offset, "module"
        elif r.type != tables.R_NONE:
            wanted = file.dynamic_symbol(r.symbol)
            # A weak import is one that may be missing; those of the good payloads are all there.
            symbol = wanted.symbol.name if not wanted.symbol.defined else wanted.symbol
            yield r.offset, (symbol, wanted.version, r.addend if r.type == tables.R_64 else 0)


def _loaded(file: linked.Linked, made: dict[int, object], start: int, size: int) -> bytes:
    """Without what relocations write over."""
    found = bytearray(file.read(start, size))
    for offset in made:
        low, high = max(offset, start), min(offset + 8, start + size)
        if low < high:
            found[low - start:high - start] = bytes(high - low)
    return bytes(found)
