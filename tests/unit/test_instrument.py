"""What instrumentation does to each kind of reference and of section, and what it leaves alone. Objects are made from data."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from elftools.elf.elffile import ELFFile

from dwarfwriter import Die, Writer, address
from elfwriter import Group, Rel, Section, Symbol, relocatable
from hotreload_tool import elf, unwind
from hotreload_tool.errors import Refused
from hotreload_tool.instrument import Options, instrument
from hotreload_tool.objectmap import ObjectMap, unpack_all

OBJECT = "build/o.o"
RET = b"\xc3"
CALL, JUMP, JUMP_IF = b"\xe8\0\0\0\0", b"\xe9\0\0\0\0", b"\x0f\x84\0\0\0\0"
LEA = b"\x48\x8d\x05\0\0\0\0"  # lea 0(%rip),%rax
STUB = b"\xff\x25\0\0\0\0\xcc\xcc"  # jmp *0(%rip); int3


class Reference(NamedTuple):
    offset: int
    type: int
    target: str  # name of the symbol, or of the section if it is a section symbol
    addend: int


class Seen:
    """An instrumented object as an independent reader (pyelftools) sees it, and its map."""

    def __init__(self, blob: bytes, described: ObjectMap) -> None:
        self.elf = ELFFile(io.BytesIO(blob))
        self.map = described
        self.sections: list[Any] = list(self.elf.iter_sections())
        table: Any = self.elf.get_section_by_name(".symtab")
        self.table: list[Any] = list(table.iter_symbols())

    def symbol(self, name: str) -> Any:
        (found,) = [s for s in self.table if s.name == name]
        return found

    def names(self) -> set[str]:
        return {s.name for s in self.table if s.name}

    def section(self, name: str) -> Any:
        (found,) = [s for s in self.sections if s.name == name]
        return found

    def data(self, name: str) -> bytes:
        return bytes(self.section(name).data())

    def home(self, name: str) -> str:
        """The section that a symbol lies in."""
        return str(self.sections[self.symbol(name)["st_shndx"]].name)

    def bytes_of(self, name: str) -> bytes:
        s = self.symbol(name)
        return bytes(self.sections[s["st_shndx"]].data()[s["st_value"] : s["st_value"] + s["st_size"]])

    def references(self, section: str) -> list[Reference]:
        """The relocations of the one section of that name, but those of stubs."""
        index = self.sections.index(self.section(section))
        found = [
            r
            for s in self.sections
            if s["sh_type"] == "SHT_RELA" and s["sh_info"] == index
            for r in s.iter_relocations()
        ]
        seen = [
            Reference(r["r_offset"], r["r_info_type"], self._target(r["r_info_sym"]), r["r_addend"]) for r in found
        ]
        return [r for r in seen if not r.target.endswith(".hr_slot")]

    def slot_holds(self, slot: str) -> str:
        """The code that a slot points to."""
        index = self.symbol(slot)["st_shndx"]
        (rela,) = [s for s in self.sections if s["sh_type"] == "SHT_RELA" and s["sh_info"] == index]
        (only,) = list(rela.iter_relocations())
        assert (only["r_offset"], only["r_info_type"], only["r_addend"]) == (0, 1, 0)
        return self._target(only["r_info_sym"])

    def _target(self, index: int) -> str:
        symbol = self.table[index]
        return str(symbol.name or self.sections[symbol["st_shndx"]].name)


def function(
    name: str, code: bytes = RET, relocations: list[Rel] | None = None, section: str = "", **symbol: Any
) -> tuple[Section, Symbol]:
    """A function in a section of its own, as -ffunction-sections lays it out."""
    home = Section(
        section or f".text.{name}", code, flags=symbol.pop("flags", "AX"), align=16, relocations=relocations or []
    )
    return home, Symbol(name, home.name, size=len(code), type="FUNC", **{"binding": "GLOBAL", **symbol})


def instrumented(
    *parts: tuple[Section, Symbol] | Section | Symbol, groups: list[Group] | None = None, pad: int = 32
) -> Seen:
    sections = [p[0] if isinstance(p, tuple) else p for p in parts if not isinstance(p, Symbol)]
    symbols = [p[1] if isinstance(p, tuple) else p for p in parts if not isinstance(p, Section)]
    blob, described = instrument(relocatable(sections, symbols, groups or []), OBJECT, Options(pad=pad))
    assert list(unpack_all(Seen(blob, described).data(".hotreload.map"))) == [described]
    return Seen(blob, described)


# ---- stubs and slots ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("binding", "visibility"),
    [("GLOBAL", "DEFAULT"), ("WEAK", "DEFAULT"), ("GLOBAL", "HIDDEN"), ("GLOBAL", "PROTECTED"), ("WEAK", "HIDDEN")],
)
def test_a_public_function_is_its_stub(binding: str, visibility: str) -> None:
    seen = instrumented(function("f", RET, binding=binding, visibility=visibility))
    stub, body, slot = seen.symbol("f"), seen.symbol("f.hr_body"), seen.symbol("f.hr_slot")
    assert stub["st_info"] == {"bind": f"STB_{binding}", "type": "STT_FUNC"}
    assert stub["st_other"]["visibility"] == f"STV_{visibility}"
    assert seen.bytes_of("f") == STUB and stub["st_value"] % 8 == 0
    assert seen.bytes_of("f.hr_body") == RET and body["st_value"] == 0
    assert body["st_other"]["visibility"] == slot["st_other"]["visibility"] == "STV_HIDDEN"
    assert seen.home("f") == seen.home("f.hr_body") == ".text.f"
    assert seen.home("f.hr_slot") == ".data.rel.ro.hr_slot" and slot["st_size"] == 8
    assert seen.slot_holds("f.hr_slot") == "f.hr_body"
    (entry,) = seen.map.functions
    assert (entry.name, entry.symbol, entry.binding, entry.size) == ("f", "f", binding.lower(), 1)


def test_the_stub_jumps_through_the_slot() -> None:
    section, symbol = function("f")
    blob, _ = instrument(relocatable([section], [symbol]), OBJECT)
    seen = Seen(blob, ObjectMap(""))
    index = seen.sections.index(seen.section(".text.f"))
    (rela,) = [
        r for s in seen.sections if s["sh_type"] == "SHT_RELA" and s["sh_info"] == index for r in s.iter_relocations()
    ]
    assert rela["r_offset"] == seen.symbol("f")["st_value"] + 2
    assert (rela["r_info_type"], rela["r_addend"], seen.table[rela["r_info_sym"]].name) == (2, -4, "f.hr_slot")


def test_a_local_function_gets_a_unique_hidden_stub() -> None:
    seen = instrumented(function("f", binding="LOCAL"))
    stub = seen.symbol("f~build/o.o")
    assert stub["st_info"]["bind"] == "STB_GLOBAL" and stub["st_other"]["visibility"] == "STV_HIDDEN"
    assert seen.symbol("f")["st_info"]["bind"] == "STB_LOCAL" and seen.bytes_of("f") == RET
    assert seen.slot_holds("f~build/o.o.hr_slot") == "f"
    assert [f.name for f in seen.map.functions] == ["f~build/o.o"]


def test_branch_protection_makes_stubs_begin_with_endbr64() -> None:
    note = Section(
        ".note.gnu.property",
        bytes.fromhex("040000001000000005000000474e5500020000c0040000000300000000000000"),
        type="NOTE",
        flags="A",
        align=8,
    )
    seen = instrumented(function("f"), note)
    assert seen.bytes_of("f").startswith(b"\xf3\x0f\x1e\xfa\x3e\xff\x25")
    assert seen.data(".note.gnu.property") == note.data


def test_stubs_have_unwind_descriptions() -> None:
    seen = instrumented(function("f"), function("g", binding="LOCAL"))
    frame: list[tuple[int, int, int, int]] = [(r.offset, r.type, 0, r.addend) for r in seen.references(".eh_frame")]
    described = unwind.parse(seen.data(".eh_frame"), frame)
    assert [f.pc_range for f in described] == [8, 8]
    covered = {(r.target, r.addend) for r in seen.references(".eh_frame")}
    assert covered == {("f.hr_body", 8), ("g", 8)}  # both symbols lie at 0 of their sections, the stubs at 8


def test_existing_unwind_descriptions_stay_with_the_body() -> None:
    data, places = unwind.stub_cfi([1], return_column=16, stack_pointer=7, cfa_offset=8)
    frame = Section(
        ".eh_frame",
        data,
        type="X86_64_UNWIND",
        flags="A",
        align=8,
        relocations=[Rel(places[0][0], "PC32", ".text.f")],
    )
    seen = instrumented(function("f"), frame)
    assert seen.data(".eh_frame")[: len(data)] == data
    assert seen.references(".eh_frame")[0] == (places[0][0], 2, ".text.f", 0)


def test_a_function_without_a_size_or_type_is_no_function() -> None:
    seen = instrumented(
        Section(".text", RET * 4, flags="AX"),
        Symbol("entry", ".text", binding="GLOBAL"),
        Symbol("sizeless", ".text", type="FUNC", binding="GLOBAL"),
    )
    assert seen.map.functions == [] and seen.data(".text") == RET * 4
    assert not any(name.endswith(".hr_slot") for name in seen.names())


# ---- references to functions --------------------------------------------------------------------

CODE_KINDS = {
    "PC32": LEA,
    "PLT32": CALL,
    "GOTPCREL": b"\x48\x8b\x05\0\0\0\0",
    "REX_GOTPCRELX": b"\x48\x8b\x05\0\0\0\0",
    "GOTPCRELX": b"\xff\x15\0\0\0\0",
    "32": b"\xb8\0\0\0\0",
    "32S": b"\x48\xc7\xc0\0\0\0\0",
    "64": b"\x48\xb8" + bytes(8),
    "GOTOFF64": b"\x48\xb8" + bytes(8),
    "PLTOFF64": b"\x48\xb8" + bytes(8),
    "PC64": b"\x48\xb8" + bytes(8),
}
PC_RELATIVE = {"PC32", "PLT32", "GOTPCREL", "REX_GOTPCRELX", "GOTPCRELX"}


def field_of(kind: str, code: bytes) -> int:
    return len(code) - (8 if "64" in kind else 4)


@pytest.mark.parametrize("kind", CODE_KINDS)
def test_code_reaches_public_functions_through_their_stubs(kind: str) -> None:
    code = CODE_KINDS[kind]
    addend = -4 if kind in PC_RELATIVE or kind == "PC64" else 0
    rel = Rel(field_of(kind, code), kind, "f", addend)
    seen = instrumented(
        function("f"),
        function("caller", code + RET, [rel]),
        function("extern_caller", code + RET, [Rel(rel.offset, kind, "elsewhere", addend)]),
        Symbol("elsewhere"),
    )
    assert seen.references(".text.caller") == [(rel.offset, rel.number, "f", addend)]
    assert seen.references(".text.extern_caller") == [(rel.offset, rel.number, "elsewhere", addend)]
    assert seen.bytes_of("f") == STUB and seen.bytes_of("caller.hr_body") == code + RET


@pytest.mark.parametrize("kind", CODE_KINDS)
@pytest.mark.parametrize("by_section", [True, False])
def test_code_reaches_local_functions_through_their_stubs(kind: str, by_section: bool) -> None:
    code = CODE_KINDS[kind]
    bias = 4 if kind in PC_RELATIVE or kind == "PC64" else 0
    target, addend = (".text", 16 - bias) if by_section else ("local", -bias)
    text = Section(".text", RET.ljust(16, b"\x90") + RET, flags="AX", align=16)
    seen = instrumented(
        text,
        Symbol("first", ".text", size=1, type="FUNC"),
        Symbol("local", ".text", value=16, size=1, type="FUNC"),
        function("caller", code + RET, [Rel(field_of(kind, code), kind, target, addend)]),
    )
    (reference,) = seen.references(".text.caller")
    assert reference[2:] == ("local~build/o.o", -bias)


@pytest.mark.parametrize("kind", ["64", "32", "32S"])
def test_data_reaches_functions_through_their_stubs(kind: str) -> None:
    width = 8 if kind == "64" else 4
    table = Section(
        ".data.table",
        bytes(3 * width),
        flags="AW",
        align=8,
        relocations=[Rel(0, kind, "f"), Rel(width, kind, ".text.g"), Rel(2 * width, kind, "elsewhere")],
    )
    seen = instrumented(
        function("f"),
        function("g", binding="LOCAL"),
        table,
        Symbol("elsewhere"),
        Symbol("table", ".data.table", size=3 * width, type="OBJECT", binding="GLOBAL"),
    )
    assert [r.target for r in seen.references(".data.table")] == ["f", "g~build/o.o", "elsewhere"]
    assert [r.addend for r in seen.references(".data.table")] == [0, 0, 0]


def test_an_address_inside_a_function_is_left_alone() -> None:
    body = RET * 8
    table = Section(
        ".data.t", bytes(16), flags="AW", align=8, relocations=[Rel(0, "64", ".text.f", 4), Rel(8, "64", ".text.f")]
    )
    seen = instrumented(
        function("f", body),
        table,
        Symbol("t", ".data.t", size=16, type="OBJECT", binding="GLOBAL"),
        function("g", LEA + RET, [Rel(3, "PC32", ".text.f", 0)]),
    )
    assert seen.references(".data.t") == [(0, 1, ".text.f", 4), (8, 1, "f", 0)]
    assert seen.references(".text.g") == [(3, 2, ".text.f", 0)]


@pytest.mark.parametrize(
    "section",
    [
        Section(".gcc_except_table", flags="A"),
        Section(".gcc_except_table.f", flags="A"),
        Section(".debug_info"),
        Section(".debug_line"),
        Section("__patchable_function_entries", flags="AWL", link=".text.f"),
        Section(".note.stapsdt", type="NOTE"),
        Section(".stapsdt.base", flags="A"),
        Section(".eh_frame_entry", flags="A"),
    ],
    ids=lambda s: s.name,
)
@pytest.mark.parametrize("target", ["f", ".text.f"])
def test_sections_that_mean_the_code_itself_are_left_alone(section: Section, target: str) -> None:
    it = Section(
        section.name, bytes(8), section.type, section.flags, link=section.link, relocations=[Rel(0, "64", target)]
    )
    seen = instrumented(function("f"), it)
    assert seen.references(section.name) == [(0, 1, "f.hr_body" if target == "f" else target, 0)]
    assert seen.data(section.name) == bytes(8)


@pytest.mark.parametrize("addend", [0, 1, 4])
def test_jump_tables_are_left_alone(addend: int) -> None:
    """PC-relative from data: the addend holds the offset in the table, and may by chance look like a function's start."""
    body = RET * 8
    table = Section(
        ".rodata.f",
        bytes(8),
        flags="A",
        align=4,
        relocations=[Rel(0, "PC32", ".text.f", addend), Rel(4, "PC32", ".text.f", addend + 4)],
    )
    seen = instrumented(function("f", body), table)
    assert seen.references(".rodata.f") == [(0, 2, ".text.f", addend), (4, 2, ".text.f", addend + 4)]
    assert seen.data(".rodata.f") == bytes(8)


def test_a_pc_relative_pointer_by_name_is_a_pointer() -> None:
    """As `.long f - .` in a table of relative pointers: that names the function."""
    table = Section(".rodata.t", bytes(4), flags="A", align=4, relocations=[Rel(0, "PC32", "f")])
    assert instrumented(function("f"), table).references(".rodata.t") == [(0, 2, "f", 0)]


# ---- cold halves and clones ---------------------------------------------------------------------


def with_cold_half(cold: bytes, relocations: list[Rel]) -> Seen:
    half = Section(".text.unlikely.f", cold, flags="AX", relocations=relocations)
    return instrumented(
        function("f", JUMP + RET, [Rel(1, "PC32", ".text.unlikely.f", -4)]),
        half,
        function("g"),
        Symbol("f.cold", half.name, size=len(cold), type="FUNC"),
    )


def test_a_cold_half_belongs_to_its_function() -> None:
    seen = with_cold_half(RET, [])
    assert [f.name for f in seen.map.functions] == ["f", "g"]
    assert seen.references(".text.f") == [(1, 2, ".text.unlikely.f", -4)] and seen.data(".text.unlikely.f") == RET


@pytest.mark.parametrize(("target", "addend"), [(".text.f", -4), ("f", -4), (".text.f", 1)])
@pytest.mark.parametrize("jump", [JUMP, JUMP_IF])
def test_a_cold_half_jumps_back_into_the_body(jump: bytes, target: str, addend: int) -> None:
    seen = with_cold_half(jump + RET, [Rel(len(jump) - 4, "PLT32", target, addend)])
    (reference,) = seen.references(".text.unlikely.f")
    assert reference[2:] == ("f.hr_body" if target == "f" else target, addend)


def test_a_cold_half_calls_through_stubs() -> None:
    seen = with_cold_half(
        CALL + CALL + JUMP, [Rel(1, "PLT32", "g", -4), Rel(6, "PLT32", "f", -4), Rel(11, "PLT32", "g", -4)]
    )
    assert [r.target for r in seen.references(".text.unlikely.f")] == ["g", "f", "g"]


@pytest.mark.parametrize("name", ["f.constprop.0", "f.isra.0", "f.part.3", "f.isra.0.constprop.1", "f.cold.7"])
def test_clones_get_no_stub(name: str) -> None:
    seen = instrumented(
        function("f", CALL + RET, [Rel(1, "PLT32", name, -4)]),
        function(name, CALL + RET, [Rel(1, "PLT32", "f", -4)], binding="LOCAL"),
    )
    assert [f.name for f in seen.map.functions] == ["f"] and seen.data(f".text.{name}") == CALL + RET
    assert seen.references(".text.f")[0].target == name and seen.references(f".text.{name}")[0].target == "f"
    assert seen.map.functions[0].refs == []  # the clone is part of its caller, and reaches nothing else


def test_a_changed_clone_changes_its_callers() -> None:
    def digest(clone: bytes) -> str:
        seen = instrumented(
            function("f", CALL + RET, [Rel(1, "PLT32", "g.isra.0", -4)]), function("g.isra.0", clone, binding="LOCAL")
        )
        return seen.map.functions[0].digest

    assert digest(b"\x90" + RET) != digest(RET * 2) and digest(RET) == digest(RET)


# ---- references without relocations -------------------------------------------------------------


def rel32(code: bytes, at: int, target: int) -> bytes:
    """The instruction `code`, at `at`, reaching `target` of its own section."""
    return code[:-4] + (target - at - len(code)).to_bytes(4, "little", signed=True)


@pytest.mark.parametrize("binding", ["LOCAL", "GLOBAL"])
def test_a_call_of_itself_without_relocation_gets_one(binding: str) -> None:
    code = rel32(CALL, 0, 0) + rel32(LEA, 5, 0) + RET
    seen = instrumented(function("f", code, binding=binding))
    stub = "f" if binding == "GLOBAL" else "f~build/o.o"
    assert seen.references(".text.f") == [(1, 4, stub, -4), (8, 2, stub, -4)]


def test_a_loop_to_the_first_instruction_is_no_call() -> None:
    code = b"\x90" + rel32(JUMP, 1, 0) + b"\xeb" + bytes([256 - 8]) + RET
    seen = instrumented(function("f", code))
    assert seen.references(".text.f") == [] and seen.bytes_of("f.hr_body") == code


@pytest.mark.parametrize(("target", "addend"), [(".text.f", -4), ("f", -4)])
def test_a_loop_with_a_relocation_is_no_call(target: str, addend: int) -> None:
    seen = instrumented(
        function("f", b"\x90" + JUMP + CALL + RET, [Rel(2, "PLT32", target, addend), Rel(7, "PLT32", target, addend)])
    )
    assert [r.target for r in seen.references(".text.f")] == ["f.hr_body" if target == "f" else target, "f"]


def test_calls_that_the_assembler_resolved_in_one_section() -> None:
    code = bytearray(b"\x90" * 48)
    code[0:6] = rel32(CALL, 0, 32) + RET  # f calls h
    code[16:22] = rel32(JUMP, 16, 32) + RET  # g jumps to h: a tail call
    code[32:33] = RET
    text = Section(".text", bytes(code), flags="AX", align=16)
    seen = instrumented(
        text,
        *[Symbol(n, ".text", value=v, size=s, type="FUNC") for n, v, s in (("f", 0, 6), ("g", 16, 6), ("h", 32, 1))],
    )
    assert seen.references(".text") == [(1, 4, "h~build/o.o", -4), (17, 4, "h~build/o.o", -4)]


def test_a_short_jump_to_another_function_is_told() -> None:
    text = Section(".text", b"\xeb\x06".ljust(8, b"\x90") + RET, flags="AX", align=8)
    seen = instrumented(
        text, Symbol("f", ".text", size=2, type="FUNC"), Symbol("g", ".text", value=8, size=1, type="FUNC")
    )
    assert seen.references(".text") == []
    assert {f.symbol: f.direct for f in seen.map.functions} == {"f": ["g~build/o.o"], "g": []}


def test_bytes_that_look_like_a_call_inside_an_instruction_are_left_alone() -> None:
    code = (
        b"\x48\xb8" + b"\xe8\xf9\xff\xff\xff\0\0\0" + RET
    )  # movabs $0x...fff9e8,%rax: "call -7" from offset 2 reaches 0
    seen = instrumented(function("f", code))
    assert seen.references(".text.f") == [] and seen.bytes_of("f.hr_body") == code


# ---- groups -------------------------------------------------------------------------------------


def test_a_comdat_function_brings_stub_and_slot_into_its_group() -> None:
    seen = instrumented(
        function("inl", flags="AXG", binding="WEAK"),
        function("caller", CALL + RET, [Rel(1, "PLT32", "inl", -4)]),
        groups=[Group("inl", [".text.inl"])],
    )
    group = seen.section(".group")
    words = [int.from_bytes(group.data()[i : i + 4], "little") for i in range(0, len(group.data()), 4)]
    members = [seen.sections[i] for i in words[1:]]
    assert words[0] == 1 and seen.table[group["sh_info"]].name == "inl"
    assert {m.name for m in members} == {
        ".text.inl",
        ".rela.text.inl",
        ".data.rel.ro.hr_slot",
        ".rela.data.rel.ro.hr_slot",
    }
    assert all(m["sh_flags"] & 0x200 for m in members)
    assert seen.home("inl.hr_slot") == ".data.rel.ro.hr_slot"
    assert seen.sections[seen.symbol("inl.hr_slot")["st_shndx"]] in members
    assert seen.symbol("inl")["st_info"]["bind"] == seen.symbol("inl.hr_slot")["st_info"]["bind"] == "STB_WEAK"
    assert seen.references(".text.caller")[0].target == "inl"
    assert [f.comdat for f in seen.map.functions if f.symbol == "inl"] == ["inl"]


def test_a_group_with_another_signature_keeps_it() -> None:
    """Constructors: group C5 holds C1 and C2; no symbol of ours may take over the signature's name."""
    seen = instrumented(
        function("_ZC2", flags="AXG", binding="WEAK"),
        Symbol("_ZC1", ".text._ZC2", size=1, type="FUNC", binding="WEAK"),
        Symbol("_ZC5", binding="LOCAL"),
        groups=[Group("_ZC5", [".text._ZC2"])],
    )
    assert seen.table[seen.section(".group")["sh_info"]].name == "_ZC5"
    assert {f.name for f in seen.map.functions} == {"_ZC1", "_ZC2"}


def test_local_symbols_in_a_group_get_no_name_that_others_could_use() -> None:
    data = Section(".data.n", bytes(4), flags="AWG", align=4)
    seen = instrumented(
        function("inl", LEA + RET, [Rel(3, "PC32", "n", -4)], flags="AXG", binding="WEAK"),
        data,
        function("helper", flags="AXG", binding="LOCAL"),
        Symbol("n", ".data.n", size=4, type="OBJECT"),
        groups=[Group("inl", [".text.inl", ".data.n", ".text.helper"])],
    )
    assert not any("~" in name for name in seen.names())
    assert seen.data(".data.n") == bytes(4) and seen.data(".text.helper") == RET
    assert seen.references(".text.inl") == [(3, 2, "n", -4)]
    assert [d.name for d in seen.map.data] == []


# ---- data ---------------------------------------------------------------------------------------


def variable(name: str, section: Section, size: int = 4, **symbol: Any) -> tuple[Section, Symbol]:
    return section, Symbol(name, section.key, size=size, **{"type": "OBJECT", "binding": "GLOBAL", **symbol})


@pytest.mark.parametrize(
    ("name", "flags", "kind"),
    [
        (".data.v", "AW", "data"),
        (".rodata.v", "A", "rodata"),
        (".data.rel.ro.v", "AW", "relro"),
        (".data", "AW", "data"),
    ],
)
def test_named_objects_have_room_to_grow(name: str, flags: str, kind: str) -> None:
    seen = instrumented(variable("v", Section(name, b"abcd", flags=flags, align=4)))
    (entry,) = seen.map.data
    assert (entry.name, entry.kind, entry.size, entry.align) == ("v", kind, 4, 4)
    assert entry.extent == seen.section(name)["sh_size"] >= 36 and seen.data(name) == b"abcd" + bytes(
        entry.extent - 4
    )
    assert seen.symbol("v")["st_size"] == 4


def test_zeroed_objects_have_room_to_grow() -> None:
    seen = instrumented(variable("v", Section(".bss.v", size=4, type="NOBITS", flags="AW", align=4)))
    assert seen.section(".bss.v")["sh_size"] == seen.map.data[0].extent >= 36 and seen.map.data[0].kind == "bss"


def test_nothing_is_put_behind_bytes_that_have_no_name() -> None:
    """They may belong to the object before them; what is laid out behind it must not move away."""
    seen = instrumented(variable("v", Section(".data.v", b"abcdefgh", flags="AW", align=4), 4))
    assert seen.data(".data.v") == b"abcdefgh" and seen.map.data[0].extent == 4


def test_no_padding_on_request() -> None:
    seen = instrumented(variable("v", Section(".data.v", b"abcd", flags="AW", align=4)), pad=0)
    assert seen.data(".data.v") == b"abcd" and seen.map.data[0].extent == 4


@pytest.mark.parametrize(
    "section",
    [
        Section("my_table", b"abcd", flags="AW"),
        Section("_set", b"abcd", flags="A"),
        Section(".init_array", b"abcdefgh", type="INIT_ARRAY", flags="AW", align=8),
        Section(".fini_array.100", b"abcdefgh", type="FINI_ARRAY", flags="AW", align=8),
        Section(".preinit_array", b"abcdefgh", type="PREINIT_ARRAY", flags="AW", align=8),
        Section(".ctors", b"abcdefgh", flags="AW"),
        Section(".tdata.v", b"abcd", flags="AWT", align=4),
        Section(".tbss.v", size=4, type="NOBITS", flags="AWT", align=4),
    ],
    ids=lambda s: s.name,
)
def test_what_the_linker_lays_out_as_an_array_is_never_padded(section: Section) -> None:
    size, tls = section.memory_size, "T" in str(section.flags)
    seen = instrumented(variable("v", section, size, type="TLS" if tls else "OBJECT"))
    assert seen.section(section.name)["sh_size"] == size and seen.data(section.name) == (section.data or bytes(size))
    assert [d.extent for d in seen.map.data] == [size]


CLASSES = """
struct A { virtual ~A() {} virtual int f() { return 1; } };
struct B { virtual ~B() {} virtual int g() { return 2; } };
struct Derived : A { int f() override { return 3; } };
struct Both : A, B { int g() override { return 4; } };
struct Virtual : virtual A { int f() override { return 5; } };
namespace { struct Hidden : A {}; }
A *made[] = {new A, new Derived, new Both, new Virtual, new Hidden}; B *other = new B;
"""


@pytest.mark.parametrize("flags", [(), ("-fno-rtti",), ("-fno-pie",)], ids=" ".join)
def test_tables_of_virtual_functions_that_cannot_grow_get_no_room(tmp_path: Path, flags: tuple[str, ...]) -> None:
    gcc = shutil.which("g++")
    if gcc is None:
        pytest.skip("needs g++")
    (tmp_path / "x.cc").write_text(CLASSES)
    options = ["-O1", "-ffunction-sections", "-fdata-sections", *flags]
    subprocess.run([gcc, *options, "-c", "x.cc", "-o", "x.o"], cwd=tmp_path, check=True, timeout=300)
    _, described = instrument((tmp_path / "x.o").read_bytes(), OBJECT)
    tables = {d.symbol: d.extent > d.size for d in described.data if d.symbol.startswith("_ZTV")}
    plain = "-fno-rtti" not in flags
    assert tables == {"_ZTV1A": plain, "_ZTV1B": plain, "_ZTV7Derived": plain, "_ZTVN12_GLOBAL__N_16HiddenE": plain,
                      "_ZTV4Both": False, "_ZTV7Virtual": False}


def test_pointers_in_init_array_go_through_stubs() -> None:
    array = Section(
        ".init_array", bytes(8), type="INIT_ARRAY", flags="AW", align=8, relocations=[Rel(0, "64", ".text.f")]
    )
    assert instrumented(function("f", binding="LOCAL"), array).references(".init_array") == [(0, 1, "f~build/o.o", 0)]


def test_merge_sections_keep_their_bytes_and_their_references() -> None:
    strings = Section(".rodata.str1.1", b"one\0two\0", flags="AMS", entsize=1)
    constants = Section(".rodata.cst8", bytes(range(16)), flags="AM", entsize=8, align=8)
    seen = instrumented(
        function(
            "f",
            LEA + LEA + LEA + RET,
            [Rel(3, "PC32", strings.name, 0), Rel(10, "PC32", ".LC0", -4), Rel(17, "PC32", constants.name, 4)],
        ),
        strings,
        constants,
        Symbol(".LC0", strings.name, value=4),
    )
    assert (seen.data(strings.name), seen.data(constants.name)) == (strings.data, constants.data)
    assert seen.references(".text.f") == [(3, 2, strings.name, 0), (10, 2, ".LC0", -4), (17, 2, constants.name, 4)]
    assert seen.map.data == []


def test_local_data_gets_a_unique_hidden_name_and_its_references_use_it() -> None:
    other = Section(".data.p", bytes(8), flags="AW", align=8, relocations=[Rel(0, "64", ".bss", 8)])
    seen = instrumented(
        Section(".bss", size=16, type="NOBITS", flags="AW", align=8),
        Symbol("a", ".bss", size=8, type="OBJECT"),
        Symbol("n.0", ".bss", value=8, size=8, type="OBJECT"),
        variable("p", other, 8),
        function("f", LEA + LEA + RET, [Rel(3, "PC32", ".bss", 4), Rel(10, "PC32", ".bss", -4)]),
    )
    assert seen.references(".text.f") == [(3, 2, "n.0~build/o.o", -4), (10, 2, "a~build/o.o", -4)]
    assert seen.references(".data.p") == [(0, 1, "n.0~build/o.o", 0)]
    unique = seen.symbol("n.0~build/o.o")
    assert (
        unique["st_other"]["visibility"] == "STV_HIDDEN"
        and unique["st_info"]["bind"] == "STB_GLOBAL"
        and unique["st_value"] == 8
    )
    assert {d.symbol: d.static_local for d in seen.map.data} == {"a": None, "n.0": "n", "p": None}


def test_an_immediate_after_the_displacement_does_not_mislead() -> None:
    """`movl $1, b(%rip)` with b at .bss+4: the addend is 4 - 8, which without decoding reads as the end of a."""
    code = b"\xc7\x05\0\0\0\0\x01\0\0\0" + RET
    seen = instrumented(
        Section(".bss", size=8, type="NOBITS", flags="AW", align=4),
        Symbol("a", ".bss", size=4, type="OBJECT"),
        Symbol("b", ".bss", value=4, size=4, type="OBJECT"),
        function("f", code, [Rel(2, "PC32", ".bss", -4)]),
    )
    assert seen.references(".text.f") == [(2, 2, "b~build/o.o", -8)]


def test_two_locals_of_one_name() -> None:
    seen = instrumented(
        variable("n", Section(".data.a", bytes(4), flags="AW"), binding="LOCAL", key="n1"),
        variable("n", Section(".data.b", bytes(4), flags="AW"), binding="LOCAL", key="n2"),
        Section(".data.p", bytes(16), flags="AW", align=8, relocations=[Rel(0, "64", "n1"), Rel(8, "64", "n2")]),
    )
    assert {d.name for d in seen.map.data} == {"n~build/o.o", "n#2~build/o.o"}
    assert [r.target for r in seen.references(".data.p")] == ["n~build/o.o", "n#2~build/o.o"]


@pytest.mark.parametrize("kind", ["TPOFF32", "GOTTPOFF", "TLSGD", "TLSLD", "DTPOFF32", "GOTPC32_TLSDESC"])
def test_references_to_local_thread_locals_use_the_unique_name(kind: str) -> None:
    seen = instrumented(
        variable("t", Section(".tbss.t", size=4, type="NOBITS", flags="AWT", align=4), type="TLS", binding="LOCAL"),
        function("f", LEA + RET, [Rel(3, kind, "t", -4)]),
    )
    (reference,) = seen.references(".text.f")
    assert reference[2:] == ("t~build/o.o", -4) and seen.symbol("t~build/o.o")["st_info"]["type"] == "STT_TLS"


@pytest.mark.parametrize(
    "name", [".LC3", "CSWTCH.12", "C.0.1", "__func__.3", "__PRETTY_FUNCTION__.0", "switch.table.f"]
)
def test_constants_that_compilers_make_have_no_name_of_their_own(name: str) -> None:
    section = Section(f".rodata.{name}", b"abcd", flags="A")
    seen = instrumented(
        variable(name, section, binding="LOCAL"), function("f", LEA + RET, [Rel(3, "PC32", section.name, -4)])
    )
    assert seen.map.data == [] and seen.data(section.name) == b"abcd" and not any("~" in n for n in seen.names())
    assert seen.references(".text.f") == [(3, 2, section.name, -4)]


def test_a_table_of_labels_belongs_to_its_function() -> None:
    body = RET * 8
    table = Section(
        ".data.rel.ro.local.labels",
        bytes(16),
        flags="AW",
        align=8,
        relocations=[Rel(0, "64", ".text.f"), Rel(8, "64", ".text.f", 4)],
    )
    seen = instrumented(function("f", body), variable("labels.0", table, 16, binding="LOCAL"))
    assert seen.references(table.name) == [(0, 1, ".text.f", 0), (8, 1, ".text.f", 4)]
    assert seen.map.data == [] and seen.data(table.name) == bytes(16)


# ---- types --------------------------------------------------------------------------------------


def test_types_of_static_locals_are_found_by_place() -> None:
    """Two functions with a static `n` each: `n.0` and `n.1` lie in .bss, and only debug information knows whose they are."""
    w = Writer(forms={"low_pc": "addr"})
    w.type_unit(7, Die("structure_type", name="foo", byte_size=4))
    statics = [Die("variable", name="n", type=t, location=address(".bss", at)) for t, at in (("int", 0), ("char", 8))]
    w.compile_unit(
        Die("base_type", key="int", name="int"),
        Die("base_type", key="char", name="char"),
        Die("subprogram", statics[0], name="f", low_pc=0, type="int", prototyped=True),
        Die("subprogram", statics[1], name="g", low_pc=0),
        Die("variable", name="v", type=7, location=address("v")),
        language=0x1D,
    )  # fmt: skip
    debug = w.sections()
    dwarf = [Section(".debug_abbrev", debug.abbrev), Section(".debug_str", debug.str)]
    for number, home in enumerate(debug.info):
        wanted: Any = home.relocations
        wide = [Rel(at, "32" if ".debug" in name else "64", name, addend) for at, (name, addend) in wanted.items()]
        dwarf.append(Section(".debug_info", home.data, relocations=wide, key=f"info {number}"))
    seen = instrumented(
        function("f"), function("g"), Section(".bss", size=16, type="NOBITS", flags="AW", align=8),
        Symbol("n.0", ".bss", value=8, size=1, type="OBJECT"), Symbol("n.1", ".bss", size=4, type="OBJECT"),
        variable("v", Section(".data.v", bytes(4), flags="AW")), *dwarf)  # fmt: skip
    assert {d.symbol: d.type for d in seen.map.data} == {"n.0": "char", "n.1": "int", "v": "struct foo"}
    assert {f.symbol: f.signature for f in seen.map.functions} == {"f": "int (void)", "g": "void ()"}
    assert seen.map.typed and list(seen.map.types.values()) == ["struct foo"]


# ---- symbols of other kinds ---------------------------------------------------------------------


def test_indirect_functions_are_left_alone() -> None:
    """Their address is what the resolver says; the dynamic linker binds them once."""
    seen = instrumented(
        function("resolve", binding="LOCAL"),
        Symbol("memcpy_", ".text.resolve", size=1, type="IFUNC", binding="GLOBAL"),
        function("f", CALL + RET, [Rel(1, "PLT32", "memcpy_", -4)]),
    )
    assert (
        seen.symbol("memcpy_")["st_info"] == {"bind": "STB_GLOBAL", "type": "STT_LOOS"}
        and seen.symbol("memcpy_")["st_value"] == 0
    )
    assert seen.references(".text.f") == [(1, 4, "memcpy_", -4)]
    assert "memcpy_.hr_slot" not in seen.names()


def test_undefined_symbols_are_left_alone() -> None:
    seen = instrumented(
        function("f", CALL + CALL + RET, [Rel(1, "PLT32", "g", -4), Rel(6, "PLT32", "w", -4)]),
        Symbol("g"),
        Symbol("w", binding="WEAK"),
    )
    assert [r.target for r in seen.references(".text.f")] == ["g", "w"]
    assert seen.symbol("w")["st_info"]["bind"] == "STB_WEAK" and seen.symbol("w")["st_shndx"] == "SHN_UNDEF"
    assert seen.map.imports == ["g", "w"] and seen.map.functions[0].refs == ["g", "w"]


def test_public_aliases_are_stubs_of_one_body() -> None:
    seen = instrumented(
        function("f"),
        Symbol("alias", ".text.f", size=1, type="FUNC", binding="WEAK"),
        function("g", CALL + CALL + RET, [Rel(1, "PLT32", "f", -4), Rel(6, "PLT32", "alias", -4)]),
    )
    assert [r.target for r in seen.references(".text.g")] == ["f", "alias"]
    assert seen.bytes_of("f") == seen.bytes_of("alias") == STUB
    assert {f.name: f.size for f in seen.map.functions} == {"f": 1, "alias": 1, "g": 11}
    bodies = [seen.symbol(seen.slot_holds(f"{n}.hr_slot")) for n in ("f", "alias")]
    assert [b["st_value"] for b in bodies] == [0, 0] and all(b["st_info"]["type"] == "STT_FUNC" for b in bodies)


def test_a_local_alias_of_a_public_function_is_that_function() -> None:
    """GCC's `f.localalias`: calls from the same file use it."""
    seen = instrumented(
        function("f"),
        Symbol("f.localalias", ".text.f", size=1, type="FUNC"),
        function("g", CALL + RET, [Rel(1, "PLT32", "f.localalias", -4)]),
    )
    assert seen.references(".text.g") == [(1, 4, "f", -4)]
    assert [f.name for f in seen.map.functions] == ["f", "g"]


def test_symbols_that_are_not_utf8_are_carried() -> None:
    name = b"f\xff".decode(errors="surrogateescape")
    section, symbol = function("f")
    blob = relocatable([section], [Symbol("f?", symbol.section, size=1, type="FUNC", binding="GLOBAL")]).replace(
        b"f?\0", b"f\xff\0"
    )
    out, described = instrument(blob, OBJECT)
    assert described.functions[0].name == name and b"f\xff\0" in out


def test_an_object_without_symbols_takes_a_map() -> None:
    """As of a file that holds a comment."""
    obj = elf.Elf("empty.o")
    obj.add_section(elf.Section("", elf.SHT_NULL, align=0))
    obj._shstrndx = obj.add_section(elf.Section(".shstrtab", elf.SHT_STRTAB, data=b"\0")).index
    out, described = instrument(obj.to_bytes(), OBJECT)
    assert described == ObjectMap(OBJECT) and [s.name for s in elf.parse(out).sections] == [
        "",
        ".shstrtab",
        ".hotreload.map",
    ]


def test_an_immense_alignment_does_not_make_an_immense_file() -> None:
    section, symbol = function("f")
    section.align = 1
    out, _ = instrument(relocatable([Section(".data", b"x", flags="AW", align=8), section], [symbol]), OBJECT)
    obj = elf.parse(relocatable([Section(".data", b"x", flags="AW", align=8), section], [symbol]))
    obj.sections[1].align = 1 << 62
    big, _ = instrument(obj.to_bytes(), OBJECT)
    assert len(big) < len(out) + 8192 and elf.parse(big).sections[1].align == 1 << 62


# ---- what is refused ----------------------------------------------------------------------------


def refused(blob: bytes, stubs: str = "plt") -> list[str]:
    with pytest.raises(Refused) as caught:
        instrument(blob, OBJECT, Options(stubs=stubs))
    assert all(r.object == OBJECT and r.reason and r.advice for r in caught.value.refusals)
    return [r.code for r in caught.value.refusals]


def test_refusals() -> None:
    section, symbol = function("f")
    good = relocatable([section], [symbol])
    assert refused(b"BC\xc0\xde" + bytes(60)) == ["lto"]
    assert refused(relocatable([Section(".gnu.lto_.decls.1", b"x")])) == ["lto"]
    assert refused(relocatable([Section(".text", RET, flags="AX")], machine=183)) == ["machine"]
    assert refused(
        relocatable([Section(".text", RET, flags="AX"), Section(".rel.text", type="REL", link=0, info=".text")])
    ) == ["rel"]
    assert refused(good[:16] + b"\3\0" + good[18:]) == ["not-object"]
    assert refused(instrument(good, OBJECT)[0]) == ["twice"]
    assert refused(good, stubs="magic") == ["stubs"]
    assert refused(b"") == refused(b"\x7fELF") == refused(good[:-1]) == ["damaged"]
    assert refused(good[:4] + b"\1" + good[5:]) == ["damaged"]


def test_every_reason_is_told() -> None:
    blob = relocatable([Section(".hotreload.map", b"x"), Section(".gnu.lto_x", b"x")], machine=183)
    assert sorted(refused(blob)) == ["lto", "machine", "twice"]
