"""Instrumentation on any object: what it does not name keeps its bytes, it is deterministic, and damage is refused."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from elfwriter import Group, Rel, Section, Symbol, relocatable
from hotreload_tool import elf, names
from hotreload_tool.elf import Elf
from hotreload_tool.errors import Refused
from hotreload_tool.instrument import Options, instrument
from hotreload_tool.objectmap import unpack_all

OBJECT = "dir/o.o"
RET, NOP = b"\xc3", b"\x90"
# Instructions with a 4-byte field at their end, and relocations that compilers put there.
INSTRUCTIONS = {
    b"\xe8": ["PLT32", "PC32"],
    b"\xe9": ["PLT32", "PC32"],
    b"\x0f\x84": ["PLT32", "PC32"],
    b"\x48\x8d\x05": ["PC32"],
    b"\x48\x8b\x05": ["PC32", "REX_GOTPCRELX", "GOTPCREL", "GOTTPOFF"],
    b"\xb8": ["32"],
    b"\x48\xc7\xc0": ["32S", "TPOFF32"],
}
DATA_KINDS = ["64", "64", "PC32", "32", "32S", "PC64"]
NAMES = [f"s{i}" for i in range(12)]
PC_RELATIVE, GOT = (2, 4, 24), (9, 41, 42)  # psABI table 4.9
MODERATE = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


KINDS = "function, shared function, shared function, comdat, data, shared data, shared data, bss, rodata, tls, merged, array"
FLAGS = {"data": "AW", "bss": "AW", "rodata": "A", "tls": "AWT", "merged": "AM", "array": "AW"}
PREFIXES = {"array": "array_", "tls": ".tdata.", "merged": ".rodata.cst8."}


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """A relocatable object of functions and data in shared and in own sections, and of sections that mean nothing to us."""
    sections, symbols, groups = list[Section](), list[Symbol](), list[Group]()
    text, data = Shared(".text", bytearray(RET.ljust(16, NOP))), Shared(".data", bytearray())
    defined = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=8))
    targets = [*defined, "undefined", ".text", ".text", ".data", ".data"]
    for name in defined:
        kind = draw(st.sampled_from(KINDS.split(", ")))
        binding = "WEAK" if kind == "comdat" else draw(st.sampled_from(["LOCAL", "GLOBAL", "WEAK"]))
        code = "function" in kind or kind == "comdat"
        content, relocations = draw(code_of(targets)) if code else draw(data_of(kind.removeprefix("shared "), targets))
        type_ = "FUNC" if code else "TLS" if kind == "tls" else "OBJECT"
        if kind.startswith("shared"):
            start = (text if code else data).add(content, relocations)
            symbols.append(Symbol(name, ".text" if code else ".data", start, len(content), type_, binding))
            continue
        if code:
            own = Section(
                f".text.{name}", content, flags="AXG" if kind == "comdat" else "AX", align=16, relocations=relocations
            )
        else:
            tail = draw(st.sampled_from([b"", b"", b"tail"]))  # bytes behind the object that nobody names
            bss = {"type": "NOBITS", "size": len(content), "data": b""} if kind == "bss" else {"data": content + tail}
            own = Section(
                PREFIXES.get(kind, f".{kind}.") + name,
                flags=FLAGS[kind],
                align=8,
                entsize=8 if kind == "merged" else 0,
                relocations=relocations,
                **bss,
            )
        sections.append(own)
        symbols.append(Symbol(name, own.key, 0, len(content), type_, binding))
        if kind == "comdat":
            groups.append(Group(name, [own.key]))
    shared = [
        Section(".text", bytes(text.data), flags="AX", align=16, relocations=text.relocations),
        Section(".data", bytes(data.data), flags="AW", align=16, relocations=data.relocations),
    ]
    everything = [*shared, *sections, *draw(unnamed_sections(targets))]
    return relocatable(everything, [Symbol("file.c", type="FILE"), *symbols, Symbol("undefined")], groups)


@dataclass
class Shared:
    """A section of several functions or objects."""

    name: str
    data: bytearray
    relocations: list[Rel] = field(default_factory=list)

    def add(self, content: bytes, relocations: list[Rel]) -> int:
        start = len(self.data)
        self.data += content.ljust(len(content) + -len(content) % 16, NOP)
        self.relocations += [Rel(r.offset + start, r.type, r.symbol, r.addend) for r in relocations]
        return start


@st.composite
def code_of(draw: st.DrawFn, targets: list[str]) -> tuple[bytes, list[Rel]]:
    code, relocations = bytearray(), []
    for opcode in draw(st.lists(st.sampled_from(sorted(INSTRUCTIONS)), max_size=4)):
        code += opcode
        if draw(st.booleans()):
            kind, target = draw(st.sampled_from(INSTRUCTIONS[opcode])), draw(st.sampled_from(targets))
            bias = 0 if kind in ("32", "32S", "TPOFF32") else 4
            relocations.append(Rel(len(code), kind, target, draw(distance(target)) - bias))
            code += bytes(4)
        else:
            code += draw(st.integers(-64, 64)).to_bytes(4, "little", signed=True)
    return bytes(code) + RET, relocations


@st.composite
def data_of(draw: st.DrawFn, kind: str, targets: list[str]) -> tuple[bytes, list[Rel]]:
    content = draw(st.binary(min_size=1, max_size=24))
    if kind not in ("data", "rodata", "array") or len(content) < 8:
        return content, []
    target = draw(st.sampled_from(targets))
    return content, [Rel(0, draw(st.sampled_from(DATA_KINDS)), target, draw(distance(target)))]


def distance(target: str) -> st.SearchStrategy[int]:
    """From a symbol: mostly none. From a section: mostly to where one of its functions or objects starts."""
    return st.sampled_from([16, 16, 32, 32, 48, 0, 4, 17] if target.startswith(".") else [0, 0, 0, 1, 4, 16])


@st.composite
def unnamed_sections(draw: st.DrawFn, targets: list[str]) -> list[Section]:
    """Sections of which instrumentation knows nothing, or that it must keep its hands off."""
    found = []
    for name, flags in [
        (".gcc_except_table", "A"),
        (".debug_info_x", ""),
        (".comment", "MS"),
        (".rodata.str1.1", "AMS"),
        (".note.x", ""),
        ("__patchable_function_entries", "AW"),
        (".stapsdt.base", "A"),
        (".rodata", "A"),
    ]:
        if draw(st.booleans()):
            data = draw(st.binary(max_size=24))
            relocations = (
                [Rel(0, draw(st.sampled_from(["64", "PC64"])), draw(st.sampled_from(targets)))]
                if len(data) >= 8 and flags != "AMS"
                else []
            )
            found.append(Section(name, data, flags=flags, entsize=1 if "S" in flags else 0, relocations=relocations))
    return found


def both(blob: bytes, pad: int = 32) -> tuple[Elf, Elf]:
    """The object before and after."""
    out, described = instrument(blob, OBJECT, Options(pad=pad))
    after = elf.parse(out)
    assert list(unpack_all(after.sections[-1].data)) == [described]
    return elf.parse(blob), after


def tables(obj: Elf) -> set[int]:
    """Sections that hold the file's own structure, rather than content."""
    structure = (elf.SHT_SYMTAB, elf.SHT_STRTAB, elf.SHT_RELA, elf.SHT_GROUP, elf.SHT_SYMTAB_SHNDX)
    return {s.index for s in obj.sections if s.type in structure}


def named_sections(obj: Elf) -> set[int]:
    """Sections with a function or an object: those that may take a stub or room at their end."""
    kinds = (elf.STT_FUNC, elf.STT_OBJECT)
    return {s.shndx for s in obj.symbols if s.defined and s.type in kinds and s.size}


@MODERATE
@given(objects(), st.sampled_from([0, 1, 32]))
def test_content_is_kept(blob: bytes, pad: int) -> None:
    """Every section keeps its place in the table, its kind and its bytes; only those with functions or objects may grow."""
    before, after = both(blob, pad)
    growing = named_sections(before)
    for old, new in zip(before.sections, after.sections):
        assert (new.name, new.type, new.flags, new.link, new.entsize) == (
            old.name,
            old.type,
            old.flags,
            old.link,
            old.entsize,
        )
        if old.index in tables(before):
            continue
        assert new.data[: len(old.data)] == old.data and new.align >= old.align
        if old.index not in growing:
            assert (new.size, new.data, new.align, new.info) == (old.size, old.data, old.align, old.info)
    added = {s.name for s in after.sections[len(before.sections) :]}
    assert {n for n in added if not n.startswith(".rela")} <= {names.SLOT_SECTION, names.MAP_SECTION, ".eh_frame"}


@MODERATE
@given(objects())
def test_linker_made_arrays_merged_constants_and_thread_locals_keep_their_size(blob: bytes) -> None:
    before, after = both(blob)
    for old, new in zip(before.sections, after.sections):
        if old.flags & (elf.SHF_TLS | elf.SHF_MERGE) or old.name.startswith("array_"):
            assert (new.data, new.size, new.align) == (old.data, old.size, old.align)


@MODERATE
@given(objects())
def test_symbols_are_kept(blob: bytes) -> None:
    """Symbols keep index, place, size, type and binding; only public functions get another name, and their stub the old one."""
    before, after = both(blob)
    by_name = {s.name: s for s in after.symbols[len(before.symbols) :]}
    for old, new in zip(before.symbols, after.symbols):
        assert (new.shndx, new.value, new.size, new.info) == (old.shndx, old.value, old.size, old.info)
        if new.name != old.name:
            assert new.name == old.name + names.BODY_SUFFIX and old.type == elf.STT_FUNC and old.binding != elf.STB_LOCAL
            stub = by_name[old.name]
            assert new.visibility == elf.STV_HIDDEN
            assert (stub.shndx, stub.binding, stub.visibility) == (old.shndx, old.binding, old.visibility)
    made = [s for s in after.symbols[len(before.symbols) :] if s.name not in {o.name for o in before.symbols}]
    assert all(s.visibility == elf.STV_HIDDEN and s.binding != elf.STB_LOCAL for s in made)


def stub_of(after: Elf) -> dict[int, tuple[int, int]]:
    """Symbol index of each stub -> (section, offset) of the code it stands for, found through its slot."""
    slots = {s.index: s for s in after.symbols if s.name.endswith(names.SLOT_SUFFIX)}
    behind: dict[tuple[int, int], tuple[int, int]] = {}
    for section in after.sections:
        for r in after.relocations(section):
            if r.symbol in slots and section.flags & elf.SHF_EXECINSTR:
                (held,) = after.relocations(after.sections[slots[r.symbol].shndx])
                body = after.symbols[held.symbol]
                behind[section.index, r.offset] = (body.shndx, body.value + held.addend)
    found = {}
    for s in after.symbols:
        for (section_index, at), body_place in behind.items():
            if s.defined and s.shndx == section_index and s.type == elf.STT_FUNC and s.value <= at < s.value + s.size:
                found[s.index] = body_place
    return found


def place(obj: Elf, symbol: int, addend: int) -> tuple[int, int]:
    s = obj.symbols[symbol]
    return (s.shndx, s.value + addend) if s.defined else (0, symbol)


@MODERATE
@given(objects())
def test_references_mean_what_they_meant(blob: bytes) -> None:
    """A relocation keeps its offset and type. It means the same place, or the stub of the function that starts there; and
    those that must not be retargeted are as they were."""
    before, after = both(blob)
    stubs = stub_of(after)
    for section in before.sections:
        old = before.relocations(section)
        new = {(r.offset, r.type): r for r in after.relocations(after.sections[section.index])}
        for r in old:
            kept = new[r.offset, r.type]
            if not section.flags & elf.SHF_ALLOC or section.name in (
                ".gcc_except_table",
                "__patchable_function_entries",
                ".stapsdt.base",
            ):
                assert kept == r
            elif kept.symbol in stubs:
                index, start = stubs[kept.symbol]
                assert place(before, r.symbol, r.addend) == (index, start + kept.addend)
                if section.flags & elf.SHF_EXECINSTR or r.type not in PC_RELATIVE:
                    assert kept.addend == (-4 if r.type in (*PC_RELATIVE, *GOT) else 0), "a place inside a stub"
                else:  # the addend holds the distance to the start of a table
                    assert before.symbols[r.symbol].type == elf.STT_FUNC and kept.addend == r.addend
            else:
                assert place(after, kept.symbol, kept.addend) == place(before, r.symbol, r.addend)


@MODERATE
@given(objects())
def test_a_public_function_is_never_reached_but_through_its_stub(blob: bytes) -> None:
    """Calls and pointers by the name of a public function name the stub afterwards."""
    before, after = both(blob)
    stubs = stub_of(after)
    for section in before.sections:
        if not section.flags & elf.SHF_ALLOC or section.name in (
            ".gcc_except_table",
            "__patchable_function_entries",
            ".stapsdt.base",
        ):
            continue
        new = {(r.offset, r.type): r for r in after.relocations(after.sections[section.index])}
        for r in before.relocations(section):
            symbol = before.symbols[r.symbol]
            exact = r.addend == (-4 if section.flags & elf.SHF_EXECINSTR and r.type not in (1, 10, 11) else 0)
            jumps = section.flags & elf.SHF_EXECINSTR and section.data[r.offset - 1] in (0xE9, 0x84)
            if (
                symbol.type == elf.STT_FUNC
                and symbol.binding != elf.STB_LOCAL
                and exact
                and not jumps
                and r.type in (1, 2, 4, 9, 10, 11, 42)
            ):
                assert new[r.offset, r.type].symbol in stubs


@MODERATE
@given(objects())
def test_it_is_deterministic(blob: bytes) -> None:
    assert instrument(blob, OBJECT) == instrument(bytes(blob), OBJECT)


@MODERATE
@given(objects(), objects())
def test_digests_do_not_depend_on_what_was_instrumented_before(blob: bytes, other: bytes) -> None:
    first = instrument(blob, OBJECT)[1]
    instrument(other, OBJECT)
    assert instrument(blob, OBJECT)[1] == first


@MODERATE
@given(objects(), st.text("abc/ @%é", min_size=1, max_size=8))
def test_the_objects_name_shows_in_names_alone(blob: bytes, other: str) -> None:
    one, two = instrument(blob, OBJECT)[1], instrument(blob, names.object_name(other))[1]
    assert [f.digest for f in one.functions if not f.refs] == [f.digest for f in two.functions if not f.refs]
    assert [(f.symbol, f.size) for f in one.functions] == [(f.symbol, f.size) for f in two.functions]
    assert all(not set(f.name) & set("@ ") for f in two.functions)


# ---- damage -------------------------------------------------------------------------------------


@functools.cache
def seeds() -> list[bytes]:
    """Objects to damage: one from data with something of everything, and, where there is a compiler, real ones."""
    found = [
        relocatable(
            [
                Section(".text", b"\xe8\xfb\xff\xff\xff\xc3".ljust(16, NOP) + RET, flags="AX", align=16),
                Section(".text.inl", b"\xe8\0\0\0\0\xc3", flags="AXG", relocations=[Rel(1, "PLT32", "f", -4)]),
                Section(
                    ".data.v", bytes(16), flags="AW", align=8, relocations=[Rel(0, "64", ".text", 16), Rel(8, "64", "inl")]
                ),
                Section(".bss.n", size=4, type="NOBITS", flags="AW", align=4),
                Section(".rodata.str1.1", b"ab\0c\0", flags="AMS", entsize=1),
            ],
            [
                Symbol("f", ".text", 0, 6, "FUNC", "GLOBAL"),
                Symbol("g", ".text", 16, 1, "FUNC"),
                Symbol("inl", ".text.inl", 0, 6, "FUNC", "WEAK"),
                Symbol("v", ".data.v", 0, 16, "OBJECT", "GLOBAL"),
                Symbol("n.0", ".bss.n", 0, 4, "OBJECT"),
                Symbol("out"),
            ],
            [Group("inl", [".text.inl"])],
        )
    ]
    return found + list(_compiled())


def _compiled() -> Iterator[bytes]:
    gcc = shutil.which("gcc")
    if gcc is None:
        return
    sources = {
        "x.c": 'static int n; int out(const char *); static int g(int a) { return a ? g(a - 1) + out("x") : n++; }\n'
        'int (*table[])(int) = {g}; int f(int a) { switch (a) { case 1: return 5; case 2: return out("y"); } return g(a); }',
        "x.cc": "struct S { virtual ~S(); int i; }; template <class T> T t(T a) { static T n; return n += a; }\n"
        "S::~S() {} int f(S *s) { try { return t(s->i) + t(2L); } catch (int e) { return e; } }",
    }
    with tempfile.TemporaryDirectory() as base:
        for name, source in sources.items():
            (Path(base) / name).write_text(source)
            subprocess.run(
                [
                    gcc,
                    "-O1",
                    "-g",
                    "-fdebug-types-section",
                    "-ffunction-sections",
                    "-fdata-sections",
                    "-c",
                    name,
                    "-o",
                    "o.o",
                ],
                cwd=base,
                check=True,
                timeout=120,
            )
            yield (Path(base) / "o.o").read_bytes()


def refused_or_done(blob: bytes) -> None:
    try:
        out, described = instrument(blob, OBJECT)
    except Refused as e:
        assert e.refusals and all(r.object == OBJECT and r.reason for r in e.refusals)
    else:
        assert elf.parse(out).sections[-1].name == names.MAP_SECTION and described.object == OBJECT


@MODERATE
@given(st.data())
def test_truncated_objects_are_refused(data: st.DataObject) -> None:
    blob = data.draw(st.sampled_from(seeds()))
    end = data.draw(st.integers(0, len(blob) - 1))
    try:
        instrument(blob[:end], OBJECT)
    except Refused as e:
        assert [r.code for r in e.refusals] == ["damaged"]
    else:
        raise AssertionError(f"{end} of {len(blob)} bytes were instrumented")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_mutated_objects_are_refused_or_instrumented(data: st.DataObject) -> None:
    blob = bytearray(data.draw(st.sampled_from(seeds())))
    for _ in range(data.draw(st.integers(1, 6))):
        width = data.draw(st.sampled_from([1, 2, 4, 8]))
        at = data.draw(st.integers(0, len(blob) - width))
        value = data.draw(st.sampled_from([0, 1, -1, 0x7F, 1 << 31, 1 << 62]) | st.integers(0, 255))
        blob[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
    refused_or_done(bytes(blob))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_mutated_tables_are_refused_or_instrumented(data: st.DataObject) -> None:
    """Damage where it does most: section headers, symbols, relocations, groups, unwind tables."""
    blob = bytearray(data.draw(st.sampled_from(seeds())))
    ranges = list(structures(bytes(blob)))
    for _ in range(data.draw(st.integers(1, 4))):
        start, size = data.draw(st.sampled_from(ranges))
        assume(size >= 8)
        at = start + data.draw(st.integers(0, size // 4 - 2)) * 4
        value = data.draw(
            st.sampled_from([0, 1, 2, 3, 0x7FFFFFFF, 0xFFFFFFFF, 0xFF00, 0x100000]) | st.integers(0, 2**32 - 1)
        )
        blob[at : at + 4] = value.to_bytes(4, "little")
    refused_or_done(bytes(blob))


def structures(blob: bytes) -> Iterator[tuple[int, int]]:
    """(offset, size) of the section header table, and of symbol tables, relocations, groups and unwind tables."""
    headers, count = int.from_bytes(blob[40:48], "little"), int.from_bytes(blob[60:62], "little")
    yield headers, count * 64
    for at in range(headers, headers + count * 64, 64):
        kind = int.from_bytes(blob[at + 4 : at + 8], "little")
        if kind in (elf.SHT_SYMTAB, elf.SHT_RELA, elf.SHT_GROUP, 0x70000001):
            yield int.from_bytes(blob[at + 24 : at + 32], "little"), int.from_bytes(blob[at + 32 : at + 40], "little")


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(blob: bytes) -> None:
    try:
        instrument(blob, OBJECT)
    except Refused as e:
        assert e.refusals
    else:
        raise AssertionError("instrumented")
