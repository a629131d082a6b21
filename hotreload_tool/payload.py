"""From new objects and a plan to one payload: an ELF shared object linked at arena addresses.

Everything that lives in the process becomes a link-time constant: its symbol moves into a section of no size at
address 0 of the output, with its image-relative address as value. What changed or is new comes along by section
garbage collection, with the payload's tables as root. The system linker does the rest.
"""
from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from . import abi, arch, elf, heads, imports, libraries, literals, names, steps, timings, transient
from .construction import Initialiser
from .contents import Content
from .elf import Elf, Rela, Section, Symbol
from .errors import HotreloadError, Refusal, Refused, about

NEW_SUFFIX = ".hr_new"            # a changed function's or constant's new content, inside a payload
_IMAGE_SECTION = ".hr.image"      # address 0 of the image that is patched
_TLS_SECTION = ".data.rel.ro.hr_tls"
_TLS_SYMBOL = "hr_tls"
_TLS_VALUES = ".data.rel.ro.hr_tls_values"
_RUN_INITIALISERS = "hr_run_initialisers"     # runtime/initialise.cc
_INITIALISERS = "hr_initialisers"
_POINTER_FOR_TABLES = "DW.ref."   # what exception tables refer to by way of; never written
_LINK_SECONDS = 600               # a linker that takes longer is stuck
_PHDR = struct.Struct("<IIQQQQQQ")   # gABI: Elf64_Phdr
_PT_NULL, _PT_LOAD, _PT_GNU_RELRO = 0, 1, 0x6474e552
_UNDEFINED = re.compile(r"undefined reference to `([^']+)'|undefined symbol: (\S+)")


class BoundFunction(NamedTuple):
    """A function that lives in the process (image-relative addresses)."""
    entry: int
    slot: int | None   # None: it has no stub, so it is only called


class Changed(NamedTuple):
    """A function of which this payload brings a new body."""
    name: str
    slot: int          # image-relative
    old_body: int      # what the slot holds now, image-relative
    old_size: int = 0  # bytes of code there
    parts: Sequence[tuple[int, int]] = ()  # old code that lies elsewhere: (image-relative address, bytes)
    head: int | None = None                # of its head in the image; None: it has a stub


class Update(NamedTuple):
    """Bytes of a living object that take new content in place."""
    name: str
    address: int       # image-relative
    size: int          # bytes
    old: Content       # what they hold now, or were initialised with
    offset: int = 0    # in the object
    flags: abi.UpdateFlags = abi.UpdateFlags.CONSTANT


class Linker(NamedTuple):
    """How to call the system linker, and the compiler for what a payload needs of ours."""
    compiler: Sequence[str]              # driver command, for its library directories
    cxx: Sequence[str] = ()              # the C++ compiler; empty: there is none
    libraries: Sequence[str] = ()        # paths of the libraries that the image needs
    options: Sequence[str] = ()          # -L…


@dataclass
class PayloadRequest:
    image: Path                          # the image, for what a shared library exports itself
    kind: str                            # "exec" | "pie" | "shared"
    build_id: bytes
    generation: int
    id: bytes                            # 32 bytes
    parent: bytes                        # 32 bytes
    base: int                            # image-relative, page-aligned: where in the arena it starts
    limit: int                           # end of the arena
    objects: Mapping[str, Path]          # object name -> instrumented object
    functions: Mapping[str, BoundFunction]
    data: Mapping[str, int]              # unique name (as the new objects call it) -> address; TLS: offset in the block
    symbols: Callable[[str], int | None]  # other symbols of the image -> address
    armed: frozenset[str] = frozenset()  # functions of the image whose heads are jumps by then
    exported: frozenset[str] = frozenset()  # of a shared library: names that others may interpose
    named_data: frozenset[str] = frozenset()  # every object with a unique name in the maps of `objects`
    changed: Sequence[Changed] = ()
    updates: Sequence[Update] = ()
    initialisers: Sequence[Initialiser] = ()  # of new objects, in the order in which they run
    tls: tuple[int, int] = (0, 1)        # size in memory and alignment of the image's TLS segment
    literals: literals.Literals | None = None  # strings of the process that new code may refer to
    folder: Path | None = None           # where to keep inputs and script of the link, for replay


@dataclass
class Payload:
    data: bytes
    start: int                           # image-relative range of the arena it takes, page-aligned
    end: int
    bodies: dict[str, tuple[int, int]] = field(default_factory=dict)    # changed: name -> (address, size)
    added: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)  # new: entry, slot, body, size
    new_data: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> (address, size)
    transient: bool = False              # may be unmapped when its functions are superseded (transient.py)


def build(request: PayloadRequest, linker: Linker) -> Payload:
    """Link the payload. Raises Refused for what cannot be linked, with the reason."""
    with tempfile.TemporaryDirectory(prefix="hotreload-") as temporary:
        folder = request.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        tls_words: list[str] = []
        inputs: list[Path] = []
        undefined: set[str] = set()
        for number, (name, path) in enumerate(sorted(request.objects.items())):
            obj = elf.read(path)
            tls_words += prepare(obj, name, number, request)
            inputs.append(_store(folder / f"{number}.o", obj.to_bytes()))
            undefined |= {s.name for s in obj.symbols if s.shndx == elf.SHN_UNDEF}
        if request.initialisers:
            inputs.append(_compile_runner(linker, folder))
        tables = make_tables(request, tls_words, _cpu(request))
        inputs.append(_store(folder / "tables.o", tables.to_bytes()))
        output = folder / "payload.so"
        steps.reached(steps.Step.LINK)
        _link(request, linker, folder, inputs, undefined, output)
        return _finish(request, elf.read(output))


def _compile_runner(linker: Linker, folder: Path) -> Path:
    """What calls the initialisers: in C++, because they may throw."""
    target = folder / "initialise.o"
    if not linker.cxx:
        raise HotreloadError("objects that code initialises were added, and the build has no C++ compiler ($CXX)")
    _run([*linker.cxx, "-O1", "-fPIC", "-fexceptions", "-c", str(abi.runtime_directory() / "initialise.cc"), "-o", str(target)],
         "what calls initialisers could not be compiled")
    return target


def _run(command: Sequence[str], failed: str) -> None:
    done = _call(command)
    if done.returncode:
        raise HotreloadError(f"{failed}:\n{done.stderr.strip()}")


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_LINK_SECONDS, errors="replace")
    except OSError as e:
        raise HotreloadError(f"{command[0]} cannot be run: {e.strerror}") from e


def _cpu(request: PayloadRequest) -> ModuleType:
    cpu = arch.for_machine(elf.EM_X86_64)
    assert cpu is not None
    return cpu


def _store(path: Path, data: bytes) -> Path:
    with about(path):
        path.write_bytes(data)
    return path


# ---- objects ------------------------------------------------------------------------------------


def prepare(obj: Elf, name: str, number: int, request: PayloadRequest) -> list[str]:
    """Bind everything in `obj` that lives in the process. Returns the symbols of words that take the TLS module id."""
    cpu = arch.for_machine(obj.machine)
    if cpu is None:
        raise Refused([Refusal("machine", name, "", f"it is for ELF machine {obj.machine}", "build for the image's machine")])
    image = obj.add_section(Section(_IMAGE_SECTION, elf.SHT_NOBITS, elf.SHF_ALLOC))
    _pass_heads_by(obj, request, cpu)
    _name_new_content(obj, request, cpu)
    _name_group_initialisers(obj, name, request)
    transient.set_jump_tables_apart(obj, cpu)
    if request.literals is not None:
        literals.reuse(obj, image, request.literals, f"hr_literal.{number}")
    words = _bind_thread_locals(obj, name, number, request, cpu)
    living: set[tuple[int, int]] = set()         # places of what lives: in a section of several, a copy that nothing refers to
    for symbol in obj.symbols:
        if symbol.binding == elf.STB_LOCAL or symbol.type == elf.STT_TLS or symbol.name == "_GLOBAL_OFFSET_TABLE_":
            continue
        if _is_interposable(symbol, request):
            symbol.shndx, symbol.value, symbol.size = elf.SHN_UNDEF, 0, 0
            continue
        address = _live_address(symbol, request)
        if address is not None:
            living.add((symbol.shndx, symbol.value))
            symbol.shndx, symbol.value, symbol.size = image.index, address, 0
            symbol.info = elf.STB_WEAK << 4 | (elf.STT_NOTYPE if symbol.type == elf.STT_GNU_IFUNC else symbol.type)
            symbol.other = elf.STV_HIDDEN
    for symbol in obj.symbols:
        if symbol.binding == elf.STB_LOCAL and symbol.type == elf.STT_OBJECT and (symbol.shndx, symbol.value) in living:
            symbol.info = elf.STB_LOCAL << 4 | elf.STT_NOTYPE
    return words


def _pass_heads_by(obj: Elf, request: PayloadRequest, cpu: ModuleType) -> None:
    stubs = heads.arm(obj, cpu)
    interposable = {s.name for s in obj.symbols if _is_interposable(s, request)}
    brought = {c.name for c in request.changed if c.head is not None} | (stubs.keys() - request.functions.keys())
    heads.Detour(obj, cpu, stubs, brought - interposable, request.armed - interposable).take()


def _is_interposable(symbol: Symbol, request: PayloadRequest) -> bool:
    """Whether the symbol is imported, though the image has it: another image may interpose it, so the agent looks it up as
    ld.so would."""
    name = symbol.name
    lives = name in request.functions or name in request.data
    return lives and name in request.exported and symbol.visibility == elf.STV_DEFAULT


def _live_address(symbol: Symbol, request: PayloadRequest) -> int | None:
    """Where the symbol lives in the process, None if this payload or a library brings it."""
    name = symbol.name
    if name in request.exported and symbol.visibility == elf.STV_DEFAULT:
        return None
    bound = request.functions.get(name)
    if bound is not None:
        return bound.entry
    if name.endswith(names.SLOT_SUFFIX):
        bound = request.functions.get(name.removesuffix(names.SLOT_SUFFIX))
        return bound.slot if bound is not None else None
    if name.endswith(names.CALL_SUFFIX):     # else it is a caller's own word, which this payload brings
        bound = request.functions.get(name.removesuffix(names.CALL_SUFFIX))
        return bound.slot if bound is not None else None
    address = request.data.get(name)
    if address is None and symbol.shndx == elf.SHN_UNDEF:
        address = request.symbols(name)
    return address


def _name_new_content(obj: Elf, request: PayloadRequest, cpu: ModuleType) -> None:
    """A symbol for each new body and each new constant, since the public name stays with what lives."""
    wanted = {c.name for c in request.changed} | {u.name for u in request.updates}
    bodies = {s.name: s for s in obj.symbols if s.defined and s.binding != elf.STB_LOCAL}
    updated = {u.name for u in request.updates}
    for name in wanted & bodies.keys():
        body, skip = _body_of(obj, bodies, name)
        if body is not None and body.type == elf.STT_TLS:
            body = _initial_value(obj, body)
        if body is not None:
            if name in updated:
                _refuse_distances(obj, body, name, cpu)
            obj.add_symbol(Symbol(name + NEW_SUFFIX, body.shndx, body.value + skip, max(body.size - skip, 0), type=body.type,
                                  binding=bodies[name].binding, other=elf.STV_HIDDEN))


def _initialiser_symbol(request: PayloadRequest, initialiser: Initialiser) -> str:
    """What the payload calls an initialiser: a changed function's new body, since its public name stays with the old one."""
    if initialiser.function is None:
        return f"hr_init.{request.initialisers.index(initialiser)}"
    changed = any(c.name == initialiser.function for c in request.changed)
    return initialiser.function + (NEW_SUFFIX if changed else "")


def _name_group_initialisers(obj: Elf, name: str, request: PayloadRequest) -> None:
    """The code that a COMDAT group has for its variable is known by the group's own `.init_array` alone."""
    wanted = {i.group: i for i in request.initialisers if i.object == name and i.group is not None}
    for _, signature, members in obj.groups() if wanted else ():
        for section in (obj.sections[m] for m in members):
            if signature.name in wanted and section.type == elf.SHT_INIT_ARRAY:
                rela = obj.relocations(section)[0]
                code = obj.symbols[rela.symbol]
                obj.add_symbol(Symbol(_initialiser_symbol(request, wanted[signature.name]), code.shndx, code.value + rela.addend,
                                      type=elf.STT_FUNC, other=elf.STV_HIDDEN))


def _initial_value(obj: Elf, variable: Symbol) -> Symbol:
    """A copy of a thread-local's initial value as a constant: the payload has no TLS segment of its own."""
    home = obj.sections[variable.shndx]
    start, end = variable.value, variable.value + variable.size
    copy = obj.add_section(Section(_TLS_VALUES, elf.SHT_PROGBITS, elf.SHF_ALLOC | elf.SHF_WRITE, home.data[start:end],
                                   align=max(home.align, 8)))
    obj.set_relocations(copy, [r._replace(offset=r.offset - start) for r in obj.relocations(home) if start <= r.offset < end])
    return Symbol(variable.name, copy.index, 0, variable.size, type=elf.STT_OBJECT)


def _refuse_distances(obj: Elf, data: Symbol, name: str, cpu: ModuleType) -> None:
    """New content is made beside the old one and copied there: a distance from where it was made would be wrong."""
    home = obj.sections[data.shndx]
    if any(r.type in cpu.PC_RELATIVE and data.value <= r.offset < data.value + data.size for r in obj.relocations(home)):
        raise Refused([Refusal("relative-content", obj.where, name, "it changed, and holds distances from its own address, which "
                               "cannot be made elsewhere", "restart the program to get this change")])


def _body_of(obj: Elf, public: Mapping[str, Symbol], name: str) -> tuple[Symbol | None, int]:
    """The symbol of the code behind stub `name` (through its slot's relocation), or of the object `name` itself, and how many
    bytes of it are a head."""
    symbol = public[name]
    slot = public.get(name + names.SLOT_SUFFIX)
    if symbol.type != elf.STT_FUNC:
        return symbol, 0
    if slot is None:
        return None, 0
    relas = obj.relocations(obj.sections[slot.shndx])
    return heads.code_of(obj, relas[0], symbol) if relas else (None, 0)


# ---- thread-locals ------------------------------------------------------------------------------


class _TlsWords:
    """Words that position-independent code reads: thread-pointer offsets, and (module, offset) pairs."""

    def __init__(self, obj: Elf, number: int) -> None:
        self._obj, self._number = obj, number
        self._section: Section | None = None
        self._symbols: dict[tuple[str, int], Symbol] = {}
        self.modules: list[str] = []

    def symbol(self, kind: str, offset: int) -> Symbol:
        found = self._symbols.get((kind, offset))
        if found is None:
            if self._section is None:
                self._section = self._obj.add_section(
                    Section(_TLS_SECTION, elf.SHT_PROGBITS, elf.SHF_ALLOC | elf.SHF_WRITE, align=8))
            at = len(self._section.data)
            self._section.data += struct.pack("<q", offset) if kind == "offset" else struct.pack("<qq", 0, offset)
            name = f"{_TLS_SYMBOL}.{self._number}.{len(self._symbols)}"
            found = self._symbols[kind, offset] = self._obj.add_symbol(
                Symbol(name, self._section.index, at, 8, type=elf.STT_OBJECT, other=elf.STV_HIDDEN))
            if kind == "pair":
                self.modules.append(name)
        return found


def _bind_thread_locals(obj: Elf, name: str, number: int, request: PayloadRequest, cpu: ModuleType) -> list[str]:
    """Write the offsets of living thread-locals in. The linker would make them the payload's own."""
    words = _TlsWords(obj, number)
    refusals: dict[str, Refusal] = {}
    for section in list(obj.sections):
        if not section.flags & elf.SHF_ALLOC or section.name == ".eh_frame":
            continue
        kept = []
        relas = obj.relocations(section)
        for rela in relas:
            symbol = obj.symbols[rela.symbol]
            handled = _bind_thread_local(obj, section, rela, symbol, request, cpu, words, refusals, name)
            if handled is not None:
                kept.append(handled)
        if kept != relas:
            obj.set_relocations(section, kept)
    if refusals:
        raise Refused(list(refusals.values()))
    return words.modules


def _bind_thread_local(obj: Elf, section: Section, rela: Rela, symbol: Symbol, request: PayloadRequest, cpu: ModuleType,
                       words: _TlsWords, refusals: dict[str, Refusal], name: str) -> Rela | None:
    """The relocation to keep instead of `rela`: itself, one to a word of ours, or None if the value is written in."""
    value = request.data.get(symbol.name) if symbol.type == elf.STT_TLS else None
    if rela.type == cpu.TLS_LOCAL_DYNAMIC:
        return Rela(rela.offset, cpu.PC32, words.symbol("pair", 0).index, rela.addend)
    if value is None:
        return rela
    if rela.type in (cpu.TLS_LOCAL_EXEC, cpu.TLS_LOCAL_EXEC_64):
        offset = cpu.tls_offset(value, *request.tls) + rela.addend
        _write(section, rela.offset, offset, cpu.width(rela.type))
        return None
    if rela.type in cpu.TLS_OFFSET:
        _write(section, rela.offset, value + rela.addend, cpu.TLS_OFFSET[rela.type])
        return None
    if rela.type == cpu.TLS_INITIAL_EXEC and request.kind != "shared":
        word = words.symbol("offset", cpu.tls_offset(value, *request.tls))
        return Rela(rela.offset, cpu.PC32, word.index, rela.addend)
    if rela.type == cpu.TLS_GENERAL:
        return Rela(rela.offset, cpu.PC32, words.symbol("pair", value).index, rela.addend)
    refusals[symbol.name] = Refusal("tls-model", name, symbol.name, "it is reached by a thread-local model that a patch "
                                    f"cannot bind (relocation type {rela.type})", "compile without -mtls-dialect=gnu2")
    return rela


def _write(section: Section, offset: int, value: int, width: int) -> None:
    data = bytearray(section.data)
    data[offset:offset + width] = value.to_bytes(width, "little", signed=True)
    section.data = bytes(data)


# ---- the payload's own tables -------------------------------------------------------------------


def make_tables(request: PayloadRequest, tls_words: Sequence[str], cpu: ModuleType) -> Elf:
    """The object with the payload header, redirects and updates (runtime/hotreload_abi.h)."""
    obj = Elf.new("tables")
    image = obj.add_section(Section(_IMAGE_SECTION, elf.SHT_NOBITS, elf.SHF_ALLOC))
    tables = obj.add_section(Section(names.PAYLOAD_SECTION, elf.SHT_PROGBITS, elf.SHF_ALLOC | elf.SHF_WRITE, align=8))
    obj.add_section(Section(".note.GNU-stack", elf.SHT_PROGBITS))
    base = obj.add_symbol(Symbol("hr_image", image.index, other=elf.STV_HIDDEN, binding=elf.STB_WEAK))
    header = obj.add_symbol(Symbol(names.PAYLOAD_SYMBOL, tables.index, type=elf.STT_OBJECT))
    writer = _TableWriter(obj, cpu, base)
    # The new size, 0 here, is known when the link is done (`_completed`).
    redirects = [writer.image(c.slot) + writer.image(c.old_body) + writer.symbol(c.name + NEW_SUFFIX) + [c.old_size, 0]
                 for c in request.changed]
    parts = [writer.image(start) + [size, i] for i, c in enumerate(request.changed) for start, size in c.parts]
    heads_ = [writer.image(c.head) + [i] for i, c in enumerate(request.changed) if c.head is not None]
    updates = [writer.image(u.address) + writer.content(u.old) + writer.symbol(u.name + NEW_SUFFIX, u.offset)
               + [u.size, int(u.flags)] for u in request.updates]
    modules = [writer.symbol(word) for word in tls_words]
    blob = abi.pack_payload(request.generation, request.id, request.parent, request.build_id)
    fields = abi.PAYLOAD_TABLES          # name -> offset of its pointer field in the header
    writer.place(blob)
    for table, rows in (("redirects", redirects), ("updates", updates), ("tls_modules", modules), ("parts", parts),
                        ("heads", heads_)):
        writer.table(header, fields[table], rows)
    if request.initialisers:
        writer.table(header, fields["init_array"], [writer.symbol(_RUN_INITIALISERS)])
        listed = [writer.symbol(_initialiser_symbol(request, i)) for i in request.initialisers]
        obj.add_symbol(Symbol(_INITIALISERS, tables.index, writer.size, 8, type=elf.STT_OBJECT, other=elf.STV_HIDDEN))
        writer.rows([*listed, [0]])
    writer.point(fields["eh_frame"], obj.add_symbol(Symbol("hr_eh_frame", elf.SHN_UNDEF)).index, 0)
    writer.finish(tables, header)
    return obj


class _TableWriter:
    """Collects words and the relocations that fill them. A word is an int or (symbol index, addend)."""

    def __init__(self, obj: Elf, cpu: ModuleType, base: Symbol) -> None:
        self._obj, self._cpu, self._base = obj, cpu, base
        self._data = bytearray()
        self._relas: list[Rela] = []
        self._contents: list[tuple[Symbol, Content]] = []
        self._symbols: dict[str, int] = {}

    def image(self, address: int) -> list[int | tuple[int, int]]:
        return [(self._base.index, address)]

    def symbol(self, name: str, addend: int = 0) -> list[int | tuple[int, int]]:
        index = self._symbols.get(name)
        if index is None:
            index = self._symbols[name] = self._obj.add_symbol(Symbol(name, elf.SHN_UNDEF)).index
        return [(index, addend)]

    def content(self, content: Content) -> list[int | tuple[int, int]]:
        symbol = self._obj.add_symbol(Symbol(f"hr_old.{len(self._contents)}", elf.SHN_UNDEF, other=elf.STV_HIDDEN))
        self._contents.append((symbol, content))
        return [(symbol.index, 0)]

    def place(self, data: bytes) -> None:
        self._data += data

    def table(self, header: Symbol, field_offset: int, rows: Sequence[Sequence[int | tuple[int, int]]]) -> None:
        """Append the rows; the header's field gets a pointer to them, the word behind it their number."""
        struct.pack_into("<QQ", self._data, field_offset, 0, len(rows))
        if rows:
            self.point(field_offset, header.index, len(self._data))
        self.rows(rows)

    @property
    def size(self) -> int:
        return len(self._data)

    def rows(self, rows: Sequence[Sequence[int | tuple[int, int]]]) -> None:
        for word in (word for row in rows for word in row):
            if isinstance(word, tuple):
                self.point(len(self._data), *word)
                word = 0
            self._data += struct.pack("<Q", word)

    def point(self, offset: int, symbol: int, addend: int) -> None:
        self._relas.append(Rela(offset, self._cpu.ABSOLUTE_POINTER, symbol, addend))

    def finish(self, section: Section, header: Symbol) -> None:
        for symbol, content in self._contents:
            at = len(self._data)
            symbol.shndx, symbol.value, symbol.size = section.index, at, len(content.data)
            self._data += content.data + bytes(-len(content.data) % 8)
            for pointer in content.pointers:
                target = self.image(0) if pointer.symbol is None else self.symbol(pointer.symbol)
                self.point(at + pointer.offset, target[0][0], pointer.addend)  # type: ignore[index]
        section.data, header.size = bytes(self._data), len(self._data)
        self._obj.set_relocations(section, sorted(self._relas))


# ---- the link -----------------------------------------------------------------------------------

_PAYLOAD_OPTIONS = ("-z", "defs", "-z", "now", "-z", "text", "-z", "relro", "-z", "noexecstack", "--build-id=none",
                    "--no-eh-frame-hdr")
_SCRIPT = """\
PHDRS {{
  headers PT_LOAD FILEHDR PHDRS FLAGS(4); text PT_LOAD FLAGS(5); constants PT_LOAD FLAGS(4);
  data PT_LOAD FLAGS(6); dynamic PT_DYNAMIC FLAGS(6); relro PT_GNU_RELRO FLAGS(4); stack PT_GNU_STACK FLAGS(6);
}}
SECTIONS {{
  .hr.image 0 (NOLOAD) : {{ *(.hr.image) }} :NONE
  . = {base:#x} + SIZEOF_HEADERS;
  .hr.head : {{ BYTE(0) }} :headers   /* always there: a segment without a section would begin at 0 */
  .hash : {{ *(.hash) }}
  .gnu.hash : {{ *(.gnu.hash) }}
  .dynsym : {{ *(.dynsym) }}
  .dynstr : {{ *(.dynstr) }}
  .gnu.version : {{ *(.gnu.version) }}
  .gnu.version_d : {{ *(.gnu.version_d) }}
  .gnu.version_r : {{ *(.gnu.version_r) }}
  .rela.dyn : {{ *(.rela.dyn) *(.rela.data*) *(.rela.got) *(.rela.bss*) *(.rela.hotreload*) }}
  .rela.plt : {{ *(.rela.plt) }}
  . = ALIGN({page});
  .plt : {{ *(.plt) *(.iplt) }} :text
  .plt.got : {{ *(.plt.got) }}
  .plt.sec : {{ *(.plt.sec) }}
  .text : {{ *(.text .text.*) }}
  . = ALIGN({page});
  .hr.jumps : {{ *(.rodata.hr_jumps) }} :constants
  .rodata : {{ *(.rodata .rodata.* .gnu.linkonce.r.*) }} :constants
  .eh_frame : {{ hr_eh_frame = .; KEEP(*(.eh_frame)) LONG(0) }}
  .gcc_except_table : {{ *(.gcc_except_table .gcc_except_table.*) }}
  . = ALIGN({page});
  .hotreload.payload : {{ KEEP(*(.hotreload.payload)) }} :data :relro
  .data.rel.ro : {{ *(.data.rel.ro.local* .data.rel.ro .data.rel.ro.*) }} :data :relro
  .dynamic : {{ *(.dynamic) }} :data :relro :dynamic
  .got : {{ *(.got) *(.igot) *(.got.plt) *(.igot.plt) }} :data :relro
  . = ALIGN({page});
  hr_relro_end = .;
  .data : {{ *(.data .data.*) }} :data
  .bss : {{ *(.dynbss) *(.bss .bss.*) *(COMMON) }} :data
  . = ALIGN({page});
  hr_end = .;
  /DISCARD/ : {{ *(.init_array*) *(.fini_array*) *(.preinit_array*) *(.ctors*) *(.dtors*) *(.note.*) *(.comment)
                 *(.hotreload.map) *(.tdata*) *(.tbss*) *(.gnu.warning.*) }}
}}
"""


def _link(request: PayloadRequest, linker: Linker, folder: Path, inputs: Sequence[Path], imports: Collection[str],
          output: Path) -> None:
    """Link with stand-ins for the libraries by calling the linker itself; in the way a compiler would where that fails, for
    what its own libraries have to add, and for the words of a failure."""
    page = _cpu(request).PAGE
    script = _store(folder / "payload.ld", _SCRIPT.format(base=request.base, page=page).encode())
    versions = _store(folder / "versions", b"{ local: *; };\n")
    options = ["--gc-sections", *_PAYLOAD_OPTIONS, "-z", f"max-page-size={page}", "-z", f"common-page-size={page}",
               "-e", names.PAYLOAD_SYMBOL, "--no-warn-mismatch", f"--version-script={versions}", "-T", str(script)]
    # Code that is not position-independent has absolute addresses in it, which only a program can hold.
    program = request.kind == "exec"
    form = ["-no-pie", "-Wl,--no-dynamic-linker,-z,nocopyreloc"] if program else ["-shared"]
    command = [*linker.compiler, *form, "-nostartfiles", "-fuse-ld=bfd", "-o", str(output),
               *(word for option in options for word in ("-Xlinker", option)), *map(str, inputs), *linker.options,
               *linker.libraries]
    if request.exported:
        command.append(str(request.image))
    (folder / "replay.sh").write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in command) + "\n")
    with timings.span("link"):
        direct = ["-m", _cpu(request).EMULATION, *options]
        if not program and not request.exported and not linker.options and _link_directly(linker, folder, direct, inputs,
                                                                                          imports, output):
            return
        done = _call(command)
    if done.returncode:
        raise _explain(done.stderr)


def _link_directly(linker: Linker, folder: Path, options: Sequence[str], inputs: Sequence[Path], wanted: Collection[str],
                   output: Path) -> bool:
    program = libraries.linker(tuple(linker.compiler))
    if program is None:
        return False
    stand_ins = imports.stand_ins(linker.libraries, wanted, folder)
    return not _call([program, "-shared", "--hash-style=gnu", "-o", str(output), *options,
                      *map(str, inputs), *stand_ins]).returncode


def _explain(stderr: str) -> HotreloadError:
    """Undefined symbols are the user's to mend; anything else is said as the linker said it."""
    missing = dict.fromkeys(a or b for a, b in _UNDEFINED.findall(stderr))
    wanted = sorted(m.removesuffix(NEW_SUFFIX) for m in missing)
    if wanted:
        return Refused([Refusal("import-missing", "", name, "it is in none of the objects, nor in the image, nor in a library "
                                "that the image loads", "add what defines it to the program, or restart with the new library")
                        for name in wanted])
    return HotreloadError("the payload could not be linked:\n" + stderr.strip())


def _finish(request: PayloadRequest, out: Elf) -> Payload:
    """Check what came along, complete the header, and read where everything lies."""
    symbols = {s.name: s for s in out.symbols if s.defined}
    end = next((s.value for s in out.symbols if s.name == "hr_end"), 0)
    if not request.base < end <= request.limit:
        raise Refused([Refusal("arena-full", "", "", f"the payload takes {end - request.base} bytes and the arena has "
                               f"{request.limit - request.base} left", "restart the program, or build it with a larger "
                               "HOTRELOAD_ARENA")])
    payload = Payload(b"", request.base, end)
    for name, symbol in symbols.items():
        if name.endswith(NEW_SUFFIX):
            payload.bodies[name.removesuffix(NEW_SUFFIX)] = (symbol.value, symbol.size)
    _find_added(out, symbols, payload)
    _find_new_data(request, out, symbols, payload)
    acts_again = request.initialisers or any(u.flags & abi.UpdateFlags.THREADS for u in request.updates)
    payload.transient = not acts_again and transient.is_transient(out, request.kind, request.base, end, _cpu(request))
    payload.data = _completed(out, [payload.bodies[c.name][1] for c in request.changed], payload.transient)
    return payload


def _find_added(out: Elf, symbols: Mapping[str, Symbol], payload: Payload) -> None:
    extents = sorted({(s.value, s.value + s.size) for s in out.symbols if s.defined and s.type == elf.STT_FUNC}, reverse=True)
    for name, slot in symbols.items():
        if name.endswith(names.SLOT_SUFFIX) and out.sections[slot.shndx].name == ".data.rel.ro":
            public = name.removesuffix(names.SLOT_SUFFIX)
            stub = symbols[public]
            body = _word_target(out, slot)
            size = next((end - body for start, end in extents if start <= body < end), 0)
            payload.added[public] = (stub.value, slot.value, body, size)


def _find_new_data(request: PayloadRequest, out: Elf, symbols: Mapping[str, Symbol], payload: Payload) -> None:
    """The named objects that the payload brings. State without a name could never be found again: refused."""
    placed = {name: s for name, s in symbols.items() if name in request.named_data
              and payload.start <= s.value < payload.end}
    payload.new_data = {name: (s.value, s.size) for name, s in placed.items()}
    starts = {s.value for s in placed.values()} | {s.value for n, s in symbols.items() if n.endswith(NEW_SUFFIX)}
    nameless = [s for s in out.symbols if s.defined and s.type == elf.STT_OBJECT and s.value not in starts
                and out.sections[s.shndx].name in (".data", ".bss") and not s.name.startswith(_POINTER_FOR_TABLES)]
    if nameless:
        raise Refused([Refusal("nameless-state", "", s.name, "it is writable and has no identity that lasts from one edit to "
                               "the next, so the new code would start with a fresh copy", "give it a name of its own at file "
                               "scope") for s in nameless])


def _word_target(out: Elf, slot: Symbol) -> int:
    """What the word at `slot` holds after relocation: the addend of its relative relocation, else what the file says."""
    for section in out.sections:
        if section.type == elf.SHT_RELA and section.flags & elf.SHF_ALLOC:
            for offset, _, addend in struct.iter_unpack("<QQq", section.data):
                if offset == slot.value:
                    return int(addend)
    home = out.sections[slot.shndx]
    return int(struct.unpack_from("<Q", home.data, slot.value - home.addr)[0])


def _completed(out: Elf, new_sizes: Sequence[int], is_transient: bool) -> bytes:
    """The file with what only the finished link knows: the sizes of the new bodies and of the unwind tables, its flags, and the
    RELRO segment.

    (With its own PHDRS in the script, ld leaves PT_GNU_RELRO empty.)"""
    raw = bytearray(Path(out.where).read_bytes())
    tables = next(s for s in out.sections if s.name == names.PAYLOAD_SECTION)
    relro_end = next(s.value for s in out.symbols if s.name == "hr_relro_end")
    frame = next((s for s in out.sections if s.name == ".eh_frame"), None)
    phoff, = struct.unpack_from("<Q", raw, 32)
    phentsize, phnum = struct.unpack_from("<HH", raw, 54)
    segments = [list(_PHDR.unpack_from(raw, phoff + i * phentsize)) for i in range(phnum)]
    home = next(s for s in segments if s[0] == _PT_LOAD and s[3] <= tables.addr < s[3] + s[6])
    file_offset = home[2] + tables.addr - home[3]
    struct.pack_into("<Q", raw, file_offset + abi.PAYLOAD_TABLES["eh_frame"] + 8, frame.size if frame else 0)
    struct.pack_into("<I", raw, file_offset + abi.PAYLOAD_HEAD.size - 4, abi.PayloadFlags(is_transient))
    for i, size in enumerate(new_sizes):         # the redirects follow the header
        struct.pack_into("<Q", raw, file_offset + abi.PAYLOAD_SIZE + (i + 1) * abi.REDIRECT.size - 8, size)
    for i, segment in enumerate(segments):
        if segment[0] == _PT_NULL:
            size = relro_end - tables.addr
            _PHDR.pack_into(raw, phoff + i * phentsize, _PT_GNU_RELRO, 4, file_offset, tables.addr, tables.addr, size, size, 1)
    return bytes(raw)
