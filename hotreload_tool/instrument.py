"""Instrumentation: a compiled object becomes one whose functions and data keep their addresses for ever.

Every function gets a stub and a slot, every file-local function and object a unique name, every named object room to
grow, and the object a map of itself. What is not named here keeps its bytes. Formats: docs/formats.md.
"""
from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from . import arch, calls, debuginfo, elf, heads, names, unwind
from .debuginfo import DebugTypes
from .digest import Digester
from .elf import Elf, Rela, Section, Symbol
from .errors import Refusal, Refused
from .objectmap import DataEntry, FunctionEntry, MapError, ObjectMap, SpecialEntry, unpack_all
from .settings import STUBS
from .survey import Part, Survey, is_linker_array, is_retargeted, survey

_BINDINGS = {elf.STB_LOCAL: "local", elf.STB_GLOBAL: "global", elf.STB_WEAK: "weak"}
_ALIGNED_FROM = 16  # bytes: an object that grows past a vector is aligned to one; a smaller one stays small
_GROWN_ALIGN = 32   # what GCC aligns large objects to (DATA_ALIGNMENT, gcc/config/i386/i386.cc)
_GAP = 16       # bytes between functions that alignment explains


@dataclass(frozen=True)
class Options:
    pad: int = 32                  # least number of bytes a named object may grow by
    stubs: str = "plt"
    headers: str | None = None     # digest of the included files, where the build tells


def instrument_file(path: str | os.PathLike[str], *, object_name: str, options: Options = Options()) -> ObjectMap:
    """Instrument the object at `path` in place, atomically. Raises Refused, and then the file is as it was."""
    with open(path, "rb") as file:
        data = file.read()
    out, described = instrument(data, object_name, options, os.fspath(path))
    folder, base = os.path.split(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(prefix=f".{base}.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(out)
        os.chmod(temporary, os.stat(path).st_mode & 0o7777)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return described


def instrument(data: bytes, object_name: str, options: Options = Options(), where: str = "object") -> tuple[bytes, ObjectMap]:
    """The instrumented object and its map. Raises Refused with every reason it finds."""
    obj = _open(data, object_name, where)
    cpu = _supported(obj, object_name, options)
    try:
        found = survey(obj, cpu, object_name)
        direct = _relocate_direct_references(found)
        described = describe(found, direct, options)
        stubs = _add_stubs(found, options.stubs)
        _retarget(found, stubs, _name_local_data(found))
        if options.stubs == "plt":
            calls.through_slots(found, stubs)
        _pad(found, described, options.pad)
        obj.add_section(Section(names.MAP_SECTION, elf.SHT_PROGBITS, data=described.pack(), align=8))
        return obj.to_bytes(), described
    except (elf.ElfError, unwind.UnwindError, struct.error, IndexError, OverflowError) as e:
        raise _refused("damaged", object_name, "", f"the object is damaged: {e}", "compile it again") from e


def carried_map(path: str | os.PathLike[str]) -> ObjectMap | None:
    """The map that the object at `path` carries, None if it was not instrumented. Raises Refused if it is damaged."""
    try:
        section = elf.read_section(path, names.MAP_SECTION)
        return None if section is None else next(iter(unpack_all(section)))
    except (elf.ElfError, MapError, StopIteration, struct.error) as e:
        raise _refused("damaged", os.fspath(path), "", f"its object map is damaged: {e}", "compile it again") from e


def read_map(path: str | os.PathLike[str]) -> ObjectMap:
    """The map of the object at `path`: the one it carries, or one computed if it was not instrumented."""
    found = carried_map(path)
    if found is not None:
        return found
    with open(path, "rb") as file:
        return instrument(file.read(), names.object_name(os.path.basename(path)), Options(), os.fspath(path))[1]


def plain_digest(path: str | os.PathLike[str]) -> str:
    """What an object that is left uninstrumented is, by its functions and data; by its bytes if it can't be read."""
    try:
        found = read_map(path)
        parts = [(f.name, f.digest) for f in found.functions] + [(d.name, d.digest) for d in found.data]
        parts += [(x.section, x.digest) for x in found.special]
        content = repr(sorted(parts)).encode()
    except Refused:
        with open(path, "rb") as file:
            content = file.read()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


# ---- what cannot be instrumented ----------------------------------------------------------------


def _refused(code: str, obj: str, name: str, reason: str, advice: str) -> Refused:
    return Refused([Refusal(code, obj, name, reason, advice)])


def _open(data: bytes, object_name: str, where: str) -> Elf:
    if data[:4] in (b"BC\xc0\xde", b"\xde\xc0\x17\x0b"):
        raise _refused("lto", object_name, "", "it is LLVM bitcode, made with -flto", "compile without -flto")
    try:
        return elf.parse(data, where)
    except (elf.ElfError, struct.error) as e:
        raise _refused("damaged", object_name, "", str(e), "compile it again") from e


def _supported(obj: Elf, object_name: str, options: Options) -> ModuleType:
    reasons: list[Refusal] = []
    cpu = arch.for_machine(obj.machine)
    if obj.type != elf.ET_REL:
        reasons.append(Refusal("not-object", object_name, "", "it is a linked ELF file, not an object", "instrument objects"))
    if cpu is None:
        reasons.append(Refusal("machine", object_name, "", f"it is for ELF machine {obj.machine}",
                               "hotreload supports x86-64; exclude this source with HOTRELOAD_EXCLUDE"))
    if options.stubs not in STUBS:
        reasons.append(Refusal("stubs", object_name, "", f"unknown kind of stubs {options.stubs!r}",
                               f"use HOTRELOAD_STUBS={' or '.join(STUBS)}"))
    for section in obj.sections:
        if section.name.startswith(".gnu.lto_"):
            reasons.append(Refusal("lto", object_name, "", "it holds code for link-time optimisation, which would replace "
                                   "what is instrumented", "compile without -flto"))
            break
        if section.name == names.MAP_SECTION:
            reasons.append(Refusal("twice", object_name, "", "it is instrumented already", "instrument objects once"))
        if section.type == elf.SHT_REL:
            reasons.append(Refusal("rel", object_name, section.name, "its relocations have no addends (SHT_REL)",
                                   "the x86-64 psABI wants SHT_RELA"))
    if reasons or cpu is None:
        raise Refused(reasons)
    return cpu


# ---- references without relocations -------------------------------------------------------------


def _relocate_direct_references(s: Survey) -> dict[Part, list[str]]:
    """Give a relocation to calls (and to addresses) of functions and clones that the assembler resolved within a section.

    Returns, for each function, the functions it reaches in a way that cannot be relocated (short jumps)."""
    unreachable: dict[Part, list[str]] = {}
    for section_index, parts in list(s.parts.items()):
        section = s.elf.sections[section_index]
        starts = {p.start: p for p in sorted(parts, key=lambda p: p.kind == "function") if p.is_code}
        if not starts:
            continue
        known = {r.offset for r in s.elf.relocations(section)}
        added = []
        for ref in s.arch.direct_references(section.data, frozenset(starts), len(parts) > 1):
            source = s.covering(section, ref.instruction)
            callee = starts[ref.target]
            if ref.field in known or source is None or not _is_instruction(s, source, ref.instruction):
                continue
            if ref.kind in ("jump", "short") and source is callee:
                continue                         # a loop whose head is the function's first instruction
            if ref.kind != "short":
                kind = s.arch.PC32 if ref.kind == "address" else s.arch.CALL32
                added.append(Rela(ref.field, kind, callee.symbols[0].index, -s.arch.PC_BIAS))
            elif callee.kind == "clone":             # it stays where it is: one byte is enough, now as before
                added.append(Rela(ref.field, s.arch.SHORT_JUMP, callee.symbols[0].index, -s.arch.width(s.arch.SHORT_JUMP)))
            else:
                unreachable.setdefault(source, []).append(callee.name or "")
        if added:
            s.elf.set_relocations(section, sorted(s.elf.relocations(section) + added))
    return _also_through_clones(s, unreachable) if any(p.kind == "clone" for p in unreachable) else unreachable


def _also_through_clones(s: Survey, unreachable: dict[Part, list[str]]) -> dict[Part, list[str]]:
    """A clone is part of every function that reaches it, and so is what it jumps to."""
    found: dict[Part, list[str]] = {}
    for function in s.functions():
        reached = {function: None}
        for part in (pending := [function]):
            used = [s.target(part.section, r).part for r in s.elf.relocations(part.section) if part.start <= r.offset < part.end]
            new = {p: None for p in used if p is not None and p.kind == "clone" and p not in reached}
            reached.update(new)
            pending += new
        names = dict.fromkeys(name for part in reached for name in unreachable.get(part, []))
        names.pop(function.name or "", None)
        if names:
            found[function] = list(names)
    return found


def _is_instruction(s: Survey, part: Part, offset: int) -> bool:
    """Whether an instruction starts at `offset`: a byte pattern may also lie inside one."""
    return any(part.start + at == offset for at, _ in s.arch.instructions(part.section.data[part.start:part.end]))


# ---- the map ------------------------------------------------------------------------------------


def describe(s: Survey, direct: dict[Part, list[str]], options: Options) -> ObjectMap:
    """The object map. Extents are those before padding."""
    digester = Digester(s)
    types = _types(s.elf)
    described = ObjectMap(object=s.object, machine=s.arch.NAME, stubs=options.stubs, headers=options.headers,
                          typed=types.typed, types=types.units, layouts=types.layouts, virtuals=types.virtuals)
    described.source = next((x.name for x in s.elf.symbols if x.type == elf.STT_FILE), None)
    for section in s.elf.sections:
        if section.name == ".comment":
            described.compiler = [t.decode(errors="replace") for t in section.data.split(b"\0") if t]
    described.functions = [_function_entry(p, digester, types, direct) for p in s.functions()]
    described.data = [_data_entry(p, digester, types) for p in s.data()]
    described.imports = sorted({x.name for x in s.elf.symbols if x.shndx == elf.SHN_UNDEF and x.binding and x.name})
    groups = {index: signature for index, (signature, _) in s.comdat_of.items()}
    described.special = [SpecialEntry(x.name, x.size, *digester.section(x), comdat=groups.get(x.index))
                         for x in _special_sections(s)]
    return described


_KNOWN_LAYOUTS: debuginfo.Known = {}      # objects of one program share most of their types


def _types(obj: Elf) -> DebugTypes:
    try:
        return debuginfo.read(debuginfo.debug_sections(obj.sections, obj.symbols), _KNOWN_LAYOUTS)
    except debuginfo.DebugInfoError as e:
        return DebugTypes(reason=str(e))


def _type_of(part: Part, types: DebugTypes) -> str | None:
    """The printed type of a variable. Public ones are found by name, local ones by their place: assemblers refer to those
    by section, and a numbered static local's symbol does not tell its function."""
    symbol = part.symbols[0]
    by_name = None if part.static_local else types.variables.get((symbol.name, None))
    return types.places.get((symbol.name, 0)) or types.places.get((part.section.name, part.start)) or by_name


def _function_entry(part: Part, digester: Digester, types: DebugTypes, direct: dict[Part, list[str]]) -> FunctionEntry:
    symbol = part.symbols[0]
    content = digester.content(part)
    return FunctionEntry(name=part.name or "", symbol=symbol.name, binding=_BINDINGS.get(symbol.binding, "global"),
                         size=part.end - part.start, digest=content.digest, refs=content.refs, comdat=part.comdat,
                         signature=types.signature(symbol.name, part.section.name, part.start), section=part.section.name,
                         direct=direct.get(part, []))


def _data_entry(part: Part, digester: Digester, types: DebugTypes) -> DataEntry:
    symbol = part.symbols[0]
    content = digester.content(part)
    size = part.end - part.start
    return DataEntry(name=part.name or "", symbol=symbol.name, binding=_BINDINGS.get(symbol.binding, "global"),
                     kind=part.kind, size=size, align=max(part.section.align, 1), extent=size, digest=content.digest,
                     refs=content.refs, comdat=part.comdat, static_local=part.static_local,
                     type=_type_of(part, types), section=part.section.name)


def _special_sections(s: Survey) -> list[Section]:
    """Allocated sections whose content is neither functions nor named objects nor found through those that refer to it."""
    used = _referred_to_by_program(s)
    found = []
    for section in s.elf.sections:
        if not section.flags & elf.SHF_ALLOC or not section.size or not is_retargeted(section):
            continue
        parts = s.parts.get(section.index, [])
        code = bool(section.flags & elf.SHF_EXECINSTR)
        state = bool(section.flags & elf.SHF_WRITE) and not section.name.startswith(".data.rel.ro") and section.index in used
        gap = _largest_gap(section, parts) if parts else section.size
        if is_linker_array(section) or (code or state) and (not parts or gap >= _GAP + section.align):
            found.append(section)
    return found


def _referred_to_by_program(s: Survey) -> set[int]:
    """Sections that code or data refers to; exception tables alone refer to pointers that compilers make for them."""
    return {s.elf.symbols[r.symbol].shndx for section in s.elf.sections if is_retargeted(section)
            for r in s.elf.relocations(section)}


def _largest_gap(section: Section, parts: list[Part]) -> int:
    at = largest = 0
    for part in parts:
        largest, at = max(largest, part.start - at), max(at, part.end)
    return max(largest, section.size - at)


# ---- stubs and slots ----------------------------------------------------------------------------


def _add_stubs(s: Survey, kind: str) -> dict[Part, Symbol]:
    """A stub and a slot for each function; the symbol that references to it go to.

    The stub lies in the function's own section (behind the code, or in the room before its entry) and the slot in RELRO, so
    both belong to the function's COMDAT group, and --gc-sections drops all three or none."""
    found = heads.find(s) if kind == "entry" else {}
    plain = s.arch.stub(any(s.arch.has_branch_protection(x.data) for x in s.elf.sections if x.name == ".note.gnu.property"))
    stubs: dict[Part, Symbol] = {}
    extents: list[tuple[Part, int, int]] = []
    behind = {}
    for part in s.functions():
        if part in found:
            stubs[part], field = heads.make(s, part, found[part])
            code = heads.anchor(s, part.section) or part.symbols[0]
            _add_slot(s, part, stubs[part].binding, field, code, found[part] + s.arch.HEAD_SIZE - code.value)
            extents.append((part, part.start - s.arch.HEAD_ROOM, s.arch.HEAD_ROOM))
        else:
            stubs[part] = behind[part] = _append_stub(s, part, plain.code)
            skip = _head_size(s, part, found)
            _add_slot(s, part, stubs[part].binding, stubs[part].value + plain.slot_field, part.symbols[0], skip)
            extents.append((part, stubs[part].value, len(plain.code)))
    _move_group_signatures(s, behind)
    _describe_stubs(s, extents)
    return stubs


def _head_size(s: Survey, part: Part, found: Mapping[Part, int]) -> int:
    """Bytes of the head that another name of the same code has: its own slot leads behind that too."""
    twin = s.covering(part.section, part.start) if found else None
    return found[twin] + s.arch.HEAD_SIZE - part.start if twin in found and twin is not None else 0


def _append_stub(s: Survey, part: Part, code: bytes) -> Symbol:
    body, section = part.symbols[0], part.section
    public, binding, other = body.name, body.binding, body.other
    if binding == elf.STB_LOCAL:
        public, binding, other = part.name or "", elf.STB_GLOBAL, elf.STV_HIDDEN
    else:
        body.name, body.other = names.made_up(body.name, names.BODY_SUFFIX), elf.STV_HIDDEN
    at = len(section.data) + -len(section.data) % s.arch.STUB_ALIGN
    section.data = section.data.ljust(at, b"\xcc") + code
    section.align = max(section.align, s.arch.STUB_ALIGN)
    return s.elf.add_symbol(Symbol(public, section.index, at, len(code), type=elf.STT_FUNC, binding=binding, other=other))


def _add_slot(s: Survey, part: Part, binding: int, field: int, code: Symbol, skip: int) -> None:
    """The slot of `part`, which leads `skip` bytes behind symbol `code`; its address goes into the stub's `field`."""
    group = s.comdat_of.get(part.section.index)
    flags = elf.SHF_ALLOC | elf.SHF_WRITE | (elf.SHF_GROUP if group else 0)
    section = s.elf.add_section(Section(names.SLOT_SECTION, elf.SHT_PROGBITS, flags, bytes(8), align=8))
    if group:
        s.elf.join_group(group[1], section)
    s.elf.set_relocations(section, [Rela(0, s.arch.ABSOLUTE_POINTER, code.index, skip)])
    slot = s.elf.add_symbol(Symbol(names.made_up(part.name or "", names.SLOT_SUFFIX), section.index, 0, 8,
                                   type=elf.STT_OBJECT, binding=binding, other=elf.STV_HIDDEN))
    reference = Rela(field, s.arch.PC32, slot.index, -s.arch.PC_BIAS)
    s.elf.set_relocations(part.section, sorted([*s.elf.relocations(part.section), reference], key=lambda r: r.offset))


def _move_group_signatures(s: Survey, stubs: dict[Part, Symbol]) -> None:
    """A group is known by the name of its signature symbol: where we renamed that, the stub has the name now."""
    by_body = {part.symbols[0].index: stub for part, stub in stubs.items()}
    for group, signature, _ in s.elf.groups():
        stub = by_body.get(signature.index)
        if stub is not None:
            group.info = stub.index


def _describe_stubs(s: Survey, extents: Sequence[tuple[Part, int, int]]) -> None:
    """Unwind descriptions: a profiler or a cancellation can catch a thread inside a stub. `extents`: offset and size in the
    section of each part."""
    if not extents:
        return
    frame = next((x for x in s.elf.sections if x.name == ".eh_frame" and x.flags & elf.SHF_ALLOC), None)
    if frame is None:
        frame = s.elf.add_section(Section(".eh_frame", elf.SHT_PROGBITS, elf.SHF_ALLOC, align=8))
    entries, places = unwind.stub_cfi([size for _, _, size in extents], **s.arch.UNWIND_STUB)
    base = len(frame.data)
    frame.data += entries
    relas = list(s.elf.relocations(frame))
    for (offset, _), (part, start, _) in zip(places, extents):
        # Through a local symbol where there is one: a global one may stand for another object's copy of the group.
        anchor = s.section_symbols.get(part.section.index, part.symbols[0])
        relas.append(Rela(base + offset, s.arch.PC32, anchor.index, start - anchor.value))
    s.elf.set_relocations(frame, relas)


# ---- references ---------------------------------------------------------------------------------


def _name_local_data(s: Survey) -> dict[Part, Symbol]:
    """The public symbol of each named object; file-local ones get a hidden one with their unique name."""
    found: dict[Part, Symbol] = {}
    for part in s.data():
        symbol = part.symbols[0]
        if symbol.binding == elf.STB_LOCAL:
            symbol = s.elf.add_symbol(Symbol(part.name or "", symbol.shndx, symbol.value, symbol.size, type=symbol.type,
                                             binding=elf.STB_GLOBAL, other=elf.STV_HIDDEN))
        found[part] = symbol
    return found


def _retarget(s: Survey, stubs: dict[Part, Symbol], data: dict[Part, Symbol]) -> None:
    """References in code and data go to stubs and unique names; those in unwind and debug sections stay."""
    for section in list(s.elf.sections):
        if not is_retargeted(section) or section.name == names.SLOT_SECTION:
            continue
        relas = s.elf.relocations(section)
        changed = [_retargeted(s, section, r, stubs, data) for r in relas]
        if changed != relas:
            s.elf.set_relocations(section, changed)


def _retargeted(s: Survey, section: Section, rela: Rela, stubs: dict[Part, Symbol], data: dict[Part, Symbol]) -> Rela:
    symbol = s.elf.symbols[rela.symbol]
    if not symbol.defined or symbol.type == elf.STT_GNU_IFUNC:     # an IFUNC lies at its resolver, and is another function
        return rela
    home = s.elf.sections[symbol.shndx]
    if home.index not in s.parts or home.name == names.SLOT_SECTION:
        return rela
    part, offset, _ = s.target(section, rela)
    if part in data:
        return rela._replace(symbol=data[part].index, addend=offset)
    if part in stubs and rela.type in s.arch.ADDRESS and _means_function(s, section, rela, part, offset):
        bias = s.arch.PC_BIAS if rela.type in s.arch.PC_RELATIVE | s.arch.GOT else 0
        by_name = symbol.index in s.by_symbol
        return rela._replace(symbol=stubs[part].index, addend=rela.addend if by_name else -bias)
    return rela


def _means_function(s: Survey, section: Section, rela: Rela, part: Part, offset: int) -> bool:
    """Whether the reference is to the function, rather than to a place in its code."""
    in_code = section.flags & elf.SHF_EXECINSTR
    by_name = rela.symbol in s.by_symbol
    if not in_code and rela.type in s.arch.PC_RELATIVE:
        return by_name               # jump tables name the section, and their addend holds the table offset too
    if offset != 0:
        return False
    owner = s.covering(section, rela.offset)
    if in_code and s.arch.is_jump(section.data, rela.offset):
        if owner is part:
            return False                  # a loop whose head is the function's first instruction
        # A .cold half jumping to its function's first instruction jumps back; it does not call.
        return s.cold_parent.get(section.index) != part.symbols[0].name.removesuffix(names.BODY_SUFFIX) or owner is None \
            or owner.kind != "clone"
    return owner is None or owner.kind != "table"


# ---- padding ------------------------------------------------------------------------------------


def _pad(s: Survey, described: ObjectMap, pad: int) -> None:
    """Room after the last named object of each section, and its extent into the map."""
    entries = {d.name: d for d in described.data}
    for part in s.data():
        section = part.section
        if part is not s.parts[section.index][-1] or section.flags & elf.SHF_TLS or is_linker_array(section) \
                or part.end < section.size or pad <= 0 or _is_several_vtables(s, part):
            continue
        if section.size >= _ALIGNED_FROM:
            section.align = max(section.align, _GROWN_ALIGN)
        room = max(pad, section.size // 4)
        room += -(section.size + room) % 8
        if section.type == elf.SHT_NOBITS:
            section.nobits += room
        else:
            section.data += bytes(room)
        for twin in s.parts[section.index]:
            if twin.end == part.end and twin.name in entries:
                entries[twin.name].extent = twin.end - twin.start + room


def _is_several_vtables(s: Survey, part: Part) -> bool:
    """Whether a table of virtual functions (_ZTV) cannot grow at its end: with several bases or virtual ones, tables lie
    behind one another, or offsets before them. A plain one begins with an offset and the only reference to the type
    information (Itanium C++ ABI §2.5.2); one that was made without that information could be either."""
    if not part.symbols[0].name.startswith("_ZTV"):
        return False
    infos = [r.offset - part.start for r in s.elf.relocations(part.section)
             if part.start <= r.offset < part.end and s.elf.symbols[r.symbol].name.startswith("_ZTI")]
    return infos != [8]
