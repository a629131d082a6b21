"""The payload as an ELF file: headers, segments, relocations, what happens when it is loaded."""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

from .. import abi, arch, names
from ..payload import NEW_SUFFIX
from . import frames, heads, tables, transience
from .linked import (
    DT_FLAGS,
    DT_STRSZ,
    DT_TEXTREL,
    EM_X86_64,
    FUNC,
    PF_R,
    PF_W,
    PF_X,
    TLS,
    UNDEFINED,
    Linked,
    Segment,
    Unreadable,
)
from .space import Space, stub_slot
from .tables import Payload

_PAGE = arch.NATIVE.PAGE
_DF_TEXTREL = 4
_START_TAGS = {12: "DT_INIT", 13: "DT_FINI", 27: "DT_INIT_ARRAYSZ", 28: "DT_FINI_ARRAYSZ", 33: "DT_PREINIT_ARRAYSZ"}
_BARE = {"__clang_call_terminate"}        # it calls std::terminate, nothing unwinds through it, and clang describes it nowhere
_PACKED = {17: "DT_REL", 36: "DT_RELR"}


def kind_problems(file: Linked, entry: dict[str, Any]) -> Iterator[str]:
    if file.machine != EM_X86_64:
        yield f"it is for ELF machine {file.machine}"
    wanted = "ET_EXEC" if entry["kind"] == "exec" else "ET_DYN"
    if file.type != wanted:
        yield f"it is of type {file.type}; a payload for a {entry['kind']} image is {wanted}"
    if not file.loads:
        yield "it has no segments"
    if any(s.type == "PT_INTERP" for s in file.segments):
        yield "it is a program with a loader of its own"
    for tag, value in file.dynamic:
        if tag in _PACKED:
            yield f"its relocations are packed ({_PACKED[tag]} {value:#x}), which agents do not read"


def header_problems(payload: Payload, entry: dict[str, Any]) -> Iterator[str]:
    header = payload.header
    said = {"generation": entry["generation"], "id": entry["id"], "parent": entry["parent"]}
    for name, value in said.items():
        if getattr(header, name) != value:
            yield f"its {name} is {getattr(header, name)}, the manifest says {value}"
    fixed = (("magic", header.magic, abi.PAYLOAD_MAGIC), ("abi", header.abi, abi.ABI), ("size", header.size, abi.PAYLOAD_SIZE),
             ("flags", header.flags & ~int(abi.PayloadFlags.TRANSIENT), 0))       # ~ of an IntFlag has its known bits alone
    yield from (f"its {name} is {value:#x}, not {wanted:#x}" for name, value, wanted in fixed if value != wanted)
    if any(header.build_id_padding):
        yield "bytes lie behind its build-id"
    if payload.file.entry % 8:
        yield f"its header at {payload.file.entry:#x} is not aligned"


# ---- segments ---------------------------------------------------------------------------------------------------


def layout_problems(file: Linked) -> Iterator[str]:
    last: Segment | None = None
    for load in file.loads:
        if load.offset + load.file_size > len(file.data):
            yield f"the segment at {load.address:#x} ends at byte {load.offset + load.file_size} of a file of {len(file.data)}"
        if load.file_size > load.size:
            yield f"the segment at {load.address:#x} has more bytes in the file than in memory"
        if (load.address - load.offset) % _PAGE:
            yield f"the segment at {load.address:#x} is not aligned to a page"
        if load.size > load.file_size and not load.flags & PF_W:
            yield f"the segment at {load.address:#x} has zeros to add and is read-only"
        if last is not None and load.address // _PAGE * _PAGE < -(-last.end // _PAGE) * _PAGE:
            yield f"the segment at {load.address:#x} shares a page with the one before it"
        last = load


def protection_problems(file: Linked) -> Iterator[str]:
    for load in file.loads:
        if load.flags & PF_W and load.flags & PF_X:
            yield f"the segment at {load.address:#x} is writable and executable"
        if not load.flags & PF_R:
            yield f"the segment at {load.address:#x} is not readable"


def stack_problems(file: Linked) -> Iterator[str]:
    stacks = [s for s in file.segments if s.type == "PT_GNU_STACK"]
    if any(s.flags & PF_X for s in stacks):
        yield "it asks for an executable stack"
    if not stacks:
        yield "it does not say what stack it needs (no PT_GNU_STACK), which means an executable one"


def arena_problems(payload: Payload, entry: dict[str, Any], space: Space, earlier: Iterable[Payload]) -> Iterator[str]:
    arena = space.arena
    if arena is None:
        yield "the image has no runtime, and so no arena"
        return
    for load in payload.file.loads:
        if not arena[0] <= load.address <= load.end <= arena[1]:
            yield f"the segment {load.address:#x}..{load.end:#x} lies outside the arena {arena[0]:#x}..{arena[1]:#x}"
    if [payload.start, payload.end] != list(entry["arena"]):
        yield (f"it occupies {payload.start:#x}..{payload.end:#x}, the manifest says "
               f"{entry['arena'][0]:#x}..{entry['arena'][1]:#x}")
    held = {r.slot: r.new for other in earlier for r in other.redirects}
    for other in earlier:
        superseded = transience.is_marked(other) and not any(
            other.start <= code < other.end for code in held.values())
        if payload.start < other.end and other.start < payload.end and not superseded:
            yield f"generation {other.header.generation} occupies {other.start:#x}..{other.end:#x} already"


# ---- relocations ------------------------------------------------------------------------------------------------


def text_relocation_problems(file: Linked) -> Iterator[str]:
    if any(tag == DT_TEXTREL or tag == DT_FLAGS and value & _DF_TEXTREL for tag, value in file.dynamic):
        yield "it announces relocations in its code"
    for r in file.relocations:
        load = file.load_of(r.offset)
        if load is not None and not load.flags & PF_W and r.type != tables.R_NONE:
            yield f"the relocation at {r.offset:#x} is in a read-only segment"


def place_problems(file: Linked) -> Iterator[str]:
    for r in file.relocations:
        load = file.load_of(r.offset, 8)
        if r.type != tables.R_NONE and (load is None or not load.flags & PF_W):
            yield f"the relocation at {r.offset:#x} is not inside its writable segments"


def relocation_kind_problems(payload: Payload, space: Space | None) -> Iterator[str]:
    """`space` None: the image is not at hand, and where relative ones lead is told by the range of the payload alone."""
    file = payload.file
    for r in file.relocations:
        if r.type == tables.R_RELATIVE:
            if space is not None and not _leads_somewhere(r.addend, file, space):
                yield f"the pointer at {r.offset:#x} leads to {r.addend:#x}, where neither image nor payload is"
        elif r.type in (tables.R_64, tables.R_GLOB_DAT, tables.R_JUMP_SLOT):
            if not r.symbol:
                yield f"the relocation at {r.offset:#x} names no symbol"
                continue
            try:
                symbol = file.dynamic_symbol(r.symbol).symbol
            except Unreadable as e:
                yield f"the relocation at {r.offset:#x}: {e}"
                continue
            if symbol.type == TLS or symbol.section != UNDEFINED and symbol.type == 10:
                yield f"the relocation at {r.offset:#x} is to {symbol.name}, which is thread-local or chosen at load time"
        elif not (r.type == tables.R_NONE or r.type == tables.R_DTPMOD64 and not r.symbol):
            yield f"the relocation at {r.offset:#x} has type {r.type}, which agents do not make"


def _leads_somewhere(address: int, file: Linked, space: Space) -> bool:
    """Ends of segments count: a pointer may stand right behind an object."""
    return any(s.address <= address <= s.end for f in (file, *space.files) for s in f.loads)


# ---- what happens at load ---------------------------------------------------------------------------------------


def start_problems(payload: Payload) -> Iterator[str]:
    file = payload.file
    yield from (f"{_START_TAGS[tag]} is {value:#x}: code would run" for tag, value in file.dynamic
                if tag in _START_TAGS and value)
    yield from _initialiser_problems(payload)
    if any(s.type == "PT_TLS" for s in file.segments):
        yield "it brings thread-local variables of its own"


def _initialiser_problems(payload: Payload) -> Iterator[str]:
    """One function, which initialises the new objects (runtime/initialise.cc)."""
    start, count = payload.tables["init_array"]
    if count > 1 or bool(count) != bool(start):
        yield f"its header names {count} functions at {start:#x} that initialise new objects"
    elif count and not payload.file.executable(payload.pointer(start)):
        yield "what initialises its new objects is not code of its own"


def export_problems(file: Linked) -> Iterator[str]:
    """Walks the dynamic symbols up to the strings that linkers put behind them."""
    start = file.tag(6)
    if not start or not file.tag(DT_STRSZ):
        return
    section = file.section_of(start)
    count = (section.end - start) // 24 if section is not None else 0
    used = max((r.symbol for r in file.relocations), default=0) + 1
    for index in range(1, max(count, used)):
        found = file.dynamic_symbol(index).symbol
        if found.section != UNDEFINED and found.binding != 0:
            yield f"it exports {found.name}"


# ---- tables -----------------------------------------------------------------------------------------------------


def table_problems(payload: Payload) -> Iterator[str]:
    file = payload.file
    relro = [(s.address, -(-s.end // _PAGE) * _PAGE) for s in file.segments if s.type == "PT_GNU_RELRO"]
    for name, (start, size) in payload.spans.items():
        load, align = file.load_of(start, size), 1 if name == "eh_frame" else 8
        if load is None:
            yield f"its {name} at {start:#x}, {size} bytes, lies outside its segments"
        elif start % align:
            yield f"its {name} at {start:#x} is not aligned"
        elif load.flags & PF_W and not any(low <= start and start + size <= high for low, high in relro):
            yield f"its {name} at {start:#x} stays writable"
    for word in payload.module_words:
        load = file.load_of(word, 8)
        if load is None or not load.flags & PF_W or word % 8:
            yield f"the thread-local module word {word:#x} lies outside its writable segments"
    for i, part in enumerate(payload.parts):
        if part.redirect >= len(payload.redirects):
            yield f"part {i} of old code belongs to redirect {part.redirect} of {len(payload.redirects)}"
    for i, head in enumerate(payload.heads):
        if head.redirect >= len(payload.redirects):
            yield f"head {i} belongs to redirect {head.redirect} of {len(payload.redirects)}"
        if i and head.redirect <= payload.heads[i - 1].redirect:
            yield f"head {i} does not come behind that of an earlier redirect"


# ---- unwinding --------------------------------------------------------------------------------------------------


def unwind_problems(payload: Payload, space: Space | None) -> Iterator[str]:
    """Code without a description is let pass only where code of the same name had none before, or where the whole image was
    built without any."""
    start, size = payload.unwind
    described: list[frames.Frame] = []
    if size:
        described, ended = frames.read(payload.file.read(start, size), start)
        if not ended:
            yield "its unwind table does not end with a zero entry, or something follows it"
    for frame in described:
        if not payload.file.executable(frame.start, frame.size):
            yield f"the unwind table speaks of {frame.start:#x}, {frame.size} bytes, which is no code of the payload"
        elif _is_of_stub(payload, frame) and (frame.rules or frame.common.rules != frames.AT_ENTRY):
            yield f"unwinding from the stub at {frame.start:#x} is not what it is at the entry of a function"
    ranges = sorted((f.start, f.end) for f in described)
    yield from (f"two entries of the unwind table speak of {two:#x}" for (_, end), (two, _) in zip(ranges, ranges[1:])
                if two < end)
    starts = [low for low, _ in ranges]
    for symbol in payload.file.symbols:
        if symbol.type != FUNC or not symbol.defined or not symbol.size or not payload.file.executable(symbol.value):
            continue
        at = bisect_right(starts, symbol.value) - 1
        covered = at >= 0 and symbol.value + symbol.size <= ranges[at][1]
        if heads.place(payload.file, symbol.value):
            covered = covered and (at == 0 or ranges[at - 1][1] == symbol.value)      # its stub, before it
        if not covered and (space is None or not _had_none(symbol.name, space)):
            yield f"no entry of the unwind table covers {symbol.name} at {symbol.value:#x}, {symbol.size} bytes"


def _is_of_stub(payload: Payload, frame: frames.Frame) -> bool:
    """Of a stub alone: one that lies before a function's entry has a description that ends there."""
    stubs = [frame.end] if heads.place(payload.file, frame.end) else []
    if not heads.place(payload.file, frame.start):
        stubs.append(frame.start)
    return any(stub_slot(payload.file, stub) in payload.own_slots for stub in stubs)


def _had_none(name: str, space: Space) -> bool:
    """Whether code of this name lacked an unwind description in the image or an earlier generation (assembler), or all code
    behind stubs does (built with -fno-asynchronous-unwind-tables)."""
    bare = name.removesuffix(NEW_SUFFIX).removesuffix(names.BODY_SUFFIX)
    plain = bare.partition(names.LOCAL_SEPARATOR)[0]
    if plain in _BARE:
        return True
    for file in space.files:
        known = frames.of_file(file)
        same = [s for n in {bare + names.BODY_SUFFIX, plain} for s in file.by_name.get(n, []) if s.type == FUNC]
        if any(s.value not in known and file.load_of(s.value) for s in same):
            return True
    bodies = {space.word(slot) for slot in tables.slots(space.image)}
    return bool(bodies) and not bodies & frames.of_file(space.image).keys()
