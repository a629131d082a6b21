"""HOTRELOAD_STUBS=entry in one object: which functions get a head, what it looks like, and what keeps a stub of its own."""
from __future__ import annotations

import struct

import pytest

from elfwriter import Rel, Section, Symbol, relocatable
from hotreload_tool import elf, heads
from hotreload_tool.arch import x86_64
from hotreload_tool.instrument import Options, instrument

ROOM = b"\x90" * 16
ENDBR64 = bytes.fromhex("f30f1efa")
RECORDS = "__patchable_function_entries"
R_64 = 1


def function(name: str, code: bytes, *, room: bytes = ROOM, binding: str = "GLOBAL") -> tuple[Section, Symbol]:
    home = Section(f".text.{name}", room + code, flags="AX", align=16)
    return home, Symbol(name, home.name, value=len(room), size=len(code), type="FUNC", binding=binding)


def instrumented(*functions: tuple[Section, Symbol], recorded: bool = True, more: tuple[Symbol, ...] = ()) -> elf.Elf:
    sections = [section for section, _ in functions]
    if recorded:
        rows = [Rel(8 * i, R_64, section.name, 0) for i, section in enumerate(sections)]
        sections.append(Section(RECORDS, bytes(8 * len(rows)), flags="WA", align=8, relocations=rows))
    blob = relocatable(sections, [*(symbol for _, symbol in functions), *more], [])
    return elf.parse(instrument(blob, "o.o", Options(stubs="entry"))[0])


def symbol(obj: elf.Elf, name: str) -> elf.Symbol:
    return next(s for s in obj.symbols if s.name == name)


def slot_leads_to(obj: elf.Elf, name: str) -> tuple[int, int]:
    """Section and offset."""
    rela, = obj.relocations(obj.sections[symbol(obj, f"{name}.hr_slot").shndx])
    return obj.symbols[rela.symbol].shndx, obj.symbols[rela.symbol].value + rela.addend


@pytest.mark.parametrize("mark", [b"", ENDBR64])
@pytest.mark.parametrize("nops", [b"\x90\x90", b"\x66\x90"])
@pytest.mark.parametrize("binding, name", [("GLOBAL", "f"), ("WEAK", "f"), ("LOCAL", "f~o.o")])
def test_a_function_with_room_gets_a_head(mark: bytes, nops: bytes, binding: str, name: str) -> None:
    obj = instrumented(function("f", mark + nops + b"\xc3", binding=binding))
    entry = symbol(obj, name)
    code = obj.sections[entry.shndx].data
    assert (entry.value, entry.size) == (16, len(mark) + 3)
    assert code[9:12] == b"\x3e\xff\x25" and code[16:] == mark + b"\x66\x90\xc3"
    assert slot_leads_to(obj, name) == (entry.shndx, 16 + len(mark) + 2)
    reference = next(r for r in obj.relocations(obj.sections[entry.shndx]))
    assert (reference.offset, reference.addend, obj.symbols[reference.symbol].name) == (12, -4, f"{name}.hr_slot")
    assert not any(s.name.endswith(".hr_body") for s in obj.symbols)
    assert not next(s for s in obj.sections if s.name == RECORDS).size


@pytest.mark.parametrize("room, code, recorded", [
    (ROOM, b"\x90\x90\xc3", False),                        # the compiler says nothing of room
    (ROOM, b"\x31\xc0\xc3", True),
    (b"\x90" * 15 + b"\xc3", b"\x90\x90\xc3", True),
    (b"", b"\x90\x90\xc3", True),
    (ROOM + b"\x90", b"\x90\x90\xc3", True),               # at an odd address two bytes could be seen by halves
])
def test_other_functions_get_a_stub(room: bytes, code: bytes, recorded: bool) -> None:
    obj = instrumented(function("f", code, room=room), recorded=recorded)
    stub, body = symbol(obj, "f"), symbol(obj, "f.hr_body")
    data = obj.sections[stub.shndx].data
    assert data[stub.value:stub.value + 2] == b"\xff\x25" and data[:len(room) + len(code)] == room + code
    assert slot_leads_to(obj, "f") == (body.shndx, body.value)
    assert next((s.size for s in obj.sections if s.name == RECORDS), 8) == 8


def test_another_name_of_the_code_gets_a_stub() -> None:
    other = Symbol("g", ".text.f", value=16, size=3, type="FUNC", binding="GLOBAL")
    obj = instrumented(function("f", b"\x90\x90\xc3"), more=(other,))
    assert slot_leads_to(obj, "f") == slot_leads_to(obj, "g") == (symbol(obj, "f").shndx, 18)
    assert symbol(obj, "f").value == symbol(obj, "g.hr_body").value == 16
    stub = symbol(obj, "g")
    assert obj.sections[stub.shndx].data[stub.value:stub.value + 2] == b"\xff\x25"


@pytest.mark.parametrize("mark", [b"", ENDBR64])
def test_what_a_patch_brings_is_armed(mark: bytes) -> None:
    obj = instrumented(function("f", mark + b"\x90\x90\xc3"))
    heads.arm(obj, x86_64)
    at = 16 + len(mark)
    jump, distance = struct.unpack_from("<Bb", obj.sections[symbol(obj, "f").shndx].data, at)
    assert jump == 0xEB and at + 2 + distance == 9         # where the stub begins


def test_the_same_code_has_the_same_digest_in_both_kinds() -> None:
    section, name = function("f", b"\x90\x90\xc3")
    digests = {instrument(relocatable([section], [name], []), "o.o", Options(stubs=kind))[1].functions[0].digest
               for kind in ("plt", "entry")}
    assert len(digests) == 1
