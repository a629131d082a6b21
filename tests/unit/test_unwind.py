"""Parsing and writing `.eh_frame`: from bytes, from mutated bytes, and against pyelftools on what gcc writes."""
from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.dwarf.callframe import CIE, FDE
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from hypothesis import given
from hypothesis import strategies as st

from hotreload_tool.unwind import DW_EH_PE_OMIT, Reloc, UnwindError, parse, stub_cfi

X86_64 = {"return_column": 16, "stack_pointer": 7, "cfa_offset": 8}    # psABI figure 3.36
PC32 = 2
RULES = b"\x0c\x07\x08\x90\x01"


def entry(body: bytes, extended: bool = False) -> bytes:
    body += bytes(-(len(body) + 4) % 8)
    length = struct.pack("<IQ", 0xFFFFFFFF, len(body)) if extended else struct.pack("<I", len(body))
    return length + body


def cie(augmentation: bytes = b"zR", data: bytes = b"\x1b", *, version: int = 1, extended: bool = False) -> bytes:
    body = bytes(4) + bytes([version]) + augmentation + b"\0" + b"\x01\x78\x10"
    if augmentation:
        body += bytes([len(data)]) + data
    return entry(body + RULES, extended)


def fde(distance: int, pointers: bytes, augmentation: bytes = b"\0", cfi: bytes = b"\x41\x0e\x10",
        extended: bool = False) -> bytes:
    return entry(struct.pack("<I", distance) + pointers + augmentation + cfi, extended)


def frame(*args: Any, **kwargs: Any) -> bytes:
    """A CIE of zR and one FDE for it."""
    first = cie()
    return first + fde(len(first) + 4, struct.pack("<iI", 0, 5), *args, **kwargs)


def test_the_ordinary_entry() -> None:
    (f,) = parse(frame(), [(32, PC32, 3, 0)])
    assert (f.offset, f.size, f.pc_begin_offset, f.pc_range, f.cie_offset) == (24, 24, 32, 5, 0)
    assert f.pc_begin == Reloc(32, PC32, 3, 0)
    assert f.cfi == b"\x41\x0e\x10" and f.cie.cfi == RULES
    assert (f.lsda_offset, f.lsda, f.cie.personality_offset, f.cie.lsda_encoding) == (None, None, None, DW_EH_PE_OMIT)
    assert (f.cie.augmentation, f.cie.code_align, f.cie.data_align, f.cie.return_register) == ("zR", 1, -8, 16)


def test_personality_and_lsda() -> None:
    first = cie(b"zPLR", b"\x9b" + bytes(4) + b"\x1b\x1b")
    with_lsda = fde(len(first) + 4, struct.pack("<iI", 0, 9), b"\x04" + bytes(4))
    without = fde(len(first) + len(with_lsda) + 4, struct.pack("<iI", 0, 7), b"\x04" + bytes(4))
    relocs = [(19, PC32, 9, 0), (len(first) + 8, PC32, 2, 0), (len(first) + 17, PC32, 5, 4)]
    one, two = parse(first + with_lsda + without, relocs)
    assert one.cie.personality_offset == 19 and one.cie.personality == Reloc(19, PC32, 9, 0)
    assert one.cie.personality_encoding == 0x9B and one.cie.lsda_encoding == 0x1B
    assert one.lsda_offset == len(first) + 17 and one.lsda == Reloc(len(first) + 17, PC32, 5, 4)
    assert (two.lsda_offset, two.lsda, two.pc_begin) == (None, None, None)


@pytest.mark.parametrize(("encoding", "form"), [(0x00, "<qQ"), (0x03, "<iI"), (0x0B, "<iI"), (0x0C, "<qQ"), (0x1B, "<iI"),
                                                (0x1C, "<qQ"), (0x10, "<qQ"), (0x9B, "<iI")])
def test_pointer_encodings(encoding: int, form: str) -> None:
    first = cie(b"zR", bytes([encoding]))
    (f,) = parse(first + fde(len(first) + 4, struct.pack(form, -1, 2**31 + 5)))
    assert f.pc_range == 2**31 + 5
    assert f.cie.fde_encoding == encoding


@pytest.mark.parametrize("augmentation", [b"zRS", b"zRB", b"zPLRB"])
def test_letters_without_data(augmentation: bytes) -> None:
    data = b"\x1b" if b"P" not in augmentation else b"\x9b" + bytes(4) + b"\x1b\x1b"
    first = cie(augmentation, data)
    (f,) = parse(first + fde(len(first) + 4, bytes(8), b"\x04\1\0\0\0" if b"L" in augmentation else b"\0"))
    assert f.cie.augmentation == augmentation.decode()
    assert f.cfi == b"\x41\x0e\x10"


def test_no_augmentation_means_absolute_pointers() -> None:
    first = cie(b"", b"")
    (f,) = parse(first + fde(len(first) + 4, struct.pack("<QQ", 0, 77), b""))
    assert f.pc_range == 77 and f.cfi == b"\x41\x0e\x10"


def test_64_bit_lengths() -> None:
    first = cie(extended=True)
    (f,) = parse(first + fde(len(first) + 12, struct.pack("<iI", 0, 5), extended=True))
    assert f.pc_begin_offset == len(first) + 16 and f.size == 32 and f.pc_range == 5


def test_version_3_return_column_is_a_leb128() -> None:
    body = bytes(4) + b"\3zR\0\x01\x78\x90\x01\x01\x1b" + RULES
    first = entry(body)
    (f,) = parse(first + fde(len(first) + 4, bytes(8)))
    assert f.cie.return_register == 0x90


def test_the_terminator_ends_the_table() -> None:
    assert len(parse(frame() + bytes(4))) == 1
    assert len(parse(frame() + bytes(16))) == 1
    with pytest.raises(UnwindError, match="follow the terminator"):
        parse(frame() + bytes(4) + frame())


def test_nothing_is_nothing() -> None:
    assert parse(b"") == [] and parse(bytes(4)) == []


def test_rules_do_not_depend_on_place_or_padding() -> None:
    (one,) = parse(frame())
    two = parse(frame(cfi=b"\x41\x0e\x10" + bytes(8)) + frame()[:24] + fde(28, struct.pack("<iI", 0, 6)))
    assert [f.rules for f in two] == [one.rules, one.rules]
    (other,) = parse(frame(cfi=b"\x41\x0e\x18"))
    assert other.rules != one.rules


@pytest.mark.parametrize(("data", "relocs", "why"), [
    (frame()[:-1], [], "over the end of the section"),
    (frame()[:26], [], "a length runs over"),
    (b"\xff" * 8, [], "an extended length runs over"),
    (struct.pack("<IQ", 0xFFFFFFFF, 1 << 62), [], "over the end of the section"),
    (struct.pack("<I", 2) + b"ab", [], "the CIE pointer"),
    (fde(4, bytes(8)), [], "no CIE lies 4 bytes before"),
    (cie() + fde(25, bytes(8)), [], "no CIE lies 25 bytes before"),
    (cie(version=2), [], "CIE version 2"),
    (cie(b"eh", b"\x1b"), [], "unsupported augmentation 'eh'"),
    (cie(b"zX", b"\x1b"), [], "unknown letter 'X'"),
    (cie(b"zR", b"\x1b\x1b"), [], "does not fill"),
    (cie(b"zLR", b"\x1b"), [], "a pointer encoding runs over"),
    (cie(b"zR", b"\x1f") + fde(28, bytes(8)), [], "unsupported pointer encoding 0x1f"),
    (cie(b"zR", b"\x5b") + fde(28, bytes(8)), [], "unsupported pointer encoding 0x5b"),
    (cie(b"zR", b"\xff") + fde(28, bytes(8)), [], "unsupported pointer encoding 0xff"),
    (frame(b"\x7f"), [], "the augmentation data runs over"),
    (entry(bytes(4) + b"\1zR"), [], "the CIE version|runs over|has no end"),
    (entry(bytes(4) + b"\1zR\0" + b"\x80" * 32), [], "more than 64 bits"),
    (frame(), [(36, PC32, 1, 0)], "the range has a relocation"),
    (frame(), [(42, PC32, 1, 0)], "where no address is expected"),
])
def test_damage_is_named(data: bytes, relocs: list[tuple[int, int, int, int]], why: str) -> None:
    with pytest.raises(UnwindError, match=why) as caught:
        parse(data, relocs)
    assert 0 <= caught.value.offset <= len(data) and why


def test_relocations_of_type_none_do_not_count() -> None:
    assert len(parse(frame(), [(42, 0, 1, 0)])) == 1


SEED = frame() + cie(b"zPLR", b"\x9b" + bytes(4) + b"\x1b\x1b") + fde(36, struct.pack("<iI", 0, 9), b"\x04\1\0\0\0") + bytes(4)


def _only_documented_errors(data: bytes) -> None:
    try:
        fdes = parse(data)
    except UnwindError as e:
        assert 0 <= e.offset <= len(data)
    else:
        assert all(0 <= f.offset < f.offset + f.size <= len(data) for f in fdes)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    _only_documented_errors(data)


@given(st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, len(SEED)))
def test_mutated_bytes(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(SEED)
    for at, value in changes:
        data[at] = value
    _only_documented_errors(bytes(data))
    _only_documented_errors(bytes(data[:end]))


@given(st.lists(st.integers(1, 2**32 - 1), max_size=20))
def test_stub_descriptions_read_back(sizes: list[int]) -> None:
    data, places = stub_cfi(sizes, **X86_64)
    assert len(data) % 8 == 0
    assert [stub for _, stub in places] == list(range(len(sizes)))
    fdes = parse(data, [(offset, PC32, stub + 1, 0) for offset, stub in places])
    assert [f.pc_range for f in fdes] == sizes
    assert [f.pc_begin_offset for f in fdes] == [offset for offset, _ in places]
    assert all(f.offset % 8 == 0 and f.size % 8 == 0 and f.cfi == b"" and f.cie.cfi == RULES for f in fdes)


def test_stub_descriptions_append_to_a_table() -> None:
    old = frame()
    data, places = stub_cfi([16, 32], **X86_64)
    fdes = parse(old + data, [(len(old) + offset, PC32, 7, 0) for offset, _ in places])
    assert [f.pc_range for f in fdes] == [5, 16, 32]


def test_stub_descriptions_of_another_cpu() -> None:
    data, _ = stub_cfi([8], return_column=30, stack_pointer=300, cfa_offset=16, code_align=4, data_align=-8)
    (f,) = parse(data)
    assert f.cie.cfi == b"\x0c\xac\x02\x10\x9e\x02" and (f.cie.code_align, f.cie.return_register) == (4, 30)
    with pytest.raises(ValueError):
        stub_cfi([8], return_column=64, stack_pointer=7, cfa_offset=8)


SOURCES = {
    "a.c": """
        int g(int); int f(int a) { int b = g(a); return b + g(b); }
        __attribute__((noinline)) static int h(int a) { volatile char x[100]; x[a] = 1; return x[3] + g(a); }
        int k(int a) { return h(a) * 2; }""",
    "b.cc": """
        #include <stdexcept>
        #include <string>
        int g(int);
        int f(int a) { try { std::string s("abc"); return g(a) + s[0]; } catch (std::exception &e) { return e.what()[0]; } }
        template <class T> T tt(T a) { if (a > 3) throw std::runtime_error("x"); return a; }
        int q(int a) { return tt(a) + tt<long>(a); }""",
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("flags", [["-O2"], ["-O0"], ["-O2", "-ffunction-sections", "-fno-asynchronous-unwind-tables"]])
def test_against_pyelftools(name: str, flags: list[str], tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    (tmp_path / name).write_text(SOURCES[name])
    subprocess.run([gcc, *flags, "-c", name, "-o", "x.o"], cwd=tmp_path, check=True, timeout=120)
    blob = (tmp_path / "x.o").read_bytes()
    elf = ELFFile(io.BytesIO(blob))
    section: Any = elf.get_section_by_name(".eh_frame")
    if section is None:
        assert name == "a.c" and "-fno-asynchronous-unwind-tables" in flags
        return
    table = elf.get_section_by_name(".rela.eh_frame")
    assert isinstance(table, RelocationSection)
    relocs = [(r["r_offset"], r["r_info_type"], r["r_info_sym"], r["r_addend"]) for r in table.iter_relocations()]
    fdes = parse(section.data(), relocs)
    entries = list(elf.get_dwarf_info(relocate_dwarf_sections=False).EH_CFI_entries())
    oracle: list[Any] = [e for e in entries if isinstance(e, FDE)]
    assert [(f.offset, f.size, f.pc_range, f.cie_offset) for f in fdes] == \
        [(e.offset, e["length"] + 4, e["address_range"], e.cie.offset) for e in oracle]
    assert {f.cie.augmentation.encode() for f in fdes} <= {e["augmentation"] for e in entries if isinstance(e, CIE)}
    assert all(f.pc_begin is not None for f in fdes)
    assert (name == "b.cc") == any(f.lsda is not None and f.cie.personality is not None for f in fdes)


def test_binutils_reads_stub_descriptions(tmp_path: Path) -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("needs binutils' readelf")
    from elfwriter import Rel, Section, Symbol, relocatable
    data, places = stub_cfi([16, 16], **X86_64)
    relocations = [Rel(offset, "PC32", f"s{stub}") for offset, stub in places]
    (tmp_path / "x.o").write_bytes(relocatable(
        [Section(".text", bytes(32), flags="AX"),
         Section(".eh_frame", data, type="X86_64_UNWIND", flags="A", align=8, relocations=relocations)],
        [Symbol("s0", ".text"), Symbol("s1", ".text", value=16)]))
    ran = subprocess.run([readelf, "-W", "--debug-dump=frames", str(tmp_path / "x.o")], check=True, capture_output=True,
                         text=True, timeout=60)
    assert ran.stdout.count(" FDE ") == 2 and "def_cfa: r7 (rsp) ofs 8" in ran.stdout
    assert "DW_CFA_offset: r16 (rip) at cfa-8" in ran.stdout and ran.stderr == ""
