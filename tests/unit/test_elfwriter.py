"""The writer's own check: what it writes, independent readers read back."""
from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import lief
import pytest
from elftools.elf.elffile import ELFFile

from elfwriter import Group, Rel, Section, Segment, Symbol, image, note, relocatable


def section(elf: ELFFile, name: str) -> Any:
    return elf.get_section_by_name(name)


def an_object() -> bytes:
    return relocatable(
        sections=[
            Section(".text.f", b"\xe8\0\0\0\0\xc3", flags="AX", align=16, relocations=[Rel(1, "PLT32", "g", -4)]),
            Section(".data.table", bytes(16), flags="AW", align=8,
                    relocations=[Rel(0, "64", "f"), Rel(8, "R_X86_64_64", ".text.f", 5)]),
            Section(".rodata.str1.1", b"hello\0", flags="AMS", entsize=1),
            Section(".bss.n", size=4, type="NOBITS", flags="AW", align=4),
            Section(".text.inl", b"\xe9\0\0\0\0", flags="AXG", relocations=[Rel(1, 2, ".rodata.str1.1", -4)]),
            Section(".tbss.t", size=8, type="NOBITS", flags="AWT", align=8),
            Section(".note.GNU-stack"),
        ],
        symbols=[
            Symbol("file.c", type="FILE"),
            Symbol("inl", ".text.inl", size=5, type="FUNC", binding="WEAK"),
            Symbol("f", ".text.f", size=6, type="FUNC", binding="GLOBAL", visibility="HIDDEN"),
            Symbol("n", ".bss.n", size=4, type="OBJECT"),
            Symbol("t", ".tbss.t", size=8, type="TLS", binding="GLOBAL"),
            Symbol("common", "*COM*", value=4, size=4, type="OBJECT", binding="GLOBAL"),
            Symbol("g"),
        ],
        groups=[Group("inl", [".text.inl"])],
    )


def an_image(kind: str) -> bytes:
    base = 0x400000 if kind == "EXEC" else 0
    return image(kind, sections=[
        Section(".note.gnu.build-id", note(b"GNU", 3, bytes(range(20))), type="NOTE", flags="A", align=4,
                address=base + 0x400),
        Section(".text", b"\xc3", flags="AX", address=base + 0x1000, align=16),
        Section(".tdata", bytes(4), flags="AWT", align=4),
        Section(".data.rel.ro", bytes(8), flags="AW", align=8),
        Section(".bss", size=0x2000, type="NOBITS", flags="AW", align=32),
    ], symbols=[Symbol("main", ".text", size=1, type="FUNC", binding="GLOBAL")],
       segments=[Segment("GNU_RELRO", "R", ".tdata", ".data.rel.ro"), Segment("GNU_STACK", "RW")], entry=base + 0x1000)


def test_pyelftools_reads_the_object() -> None:
    elf = ELFFile(io.BytesIO(an_object()))
    names = [s.name for s in elf.iter_sections()]
    assert names[:4] == ["", ".group", ".text.f", ".rela.text.f"]
    symbols = {s.name: s for s in section(elf, ".symtab").iter_symbols()}
    assert symbols["g"]["st_shndx"] == "SHN_UNDEF" and symbols["common"]["st_shndx"] == "SHN_COMMON"
    assert symbols["f"]["st_other"]["visibility"] == "STV_HIDDEN"
    relocations = list(section(elf, ".rela.data.table").iter_relocations())
    assert [(r["r_offset"], r["r_info_type"], r["r_addend"]) for r in relocations] == [(0, 1, 0), (8, 1, 5)]
    table = section(elf, ".symtab")
    target = table.get_symbol(relocations[1]["r_info_sym"])
    assert target["st_info"]["type"] == "STT_SECTION" and names[target["st_shndx"]] == ".text.f"
    assert all(s["st_info"]["bind"] == "STB_LOCAL" for s in list(table.iter_symbols())[:table["sh_info"]])
    assert all(s["st_info"]["bind"] != "STB_LOCAL" for s in list(table.iter_symbols())[table["sh_info"]:])


def test_lief_reads_the_object_and_both_images() -> None:
    read = lief.ELF.parse(list(an_object()))
    bss = read.get_section(".bss.n") if read else None
    assert bss is not None and bss.size == 4
    for kind in ("DYN", "EXEC"):
        linked = lief.ELF.parse(list(an_image(kind)))
        assert linked is not None
        loads = [s for s in linked.segments if s.type == lief.ELF.Segment.TYPE.LOAD]
        assert [int(s.flags) for s in loads] == [4, 5, 6]
        assert all((s.file_offset - s.virtual_address) % 0x1000 == 0 for s in loads)
        assert loads[-1].virtual_size > loads[-1].physical_size
        main = linked.get_symbol("main")
        assert main is not None and main.value == linked.entrypoint
        build_id = linked.get(lief.ELF.Note.TYPE.GNU_BUILD_ID)
        assert build_id is not None and bytes(build_id.description) == bytes(range(20))


@pytest.mark.parametrize("blob", [an_object(), an_image("DYN"), an_image("EXEC")], ids=["rel", "dyn", "exec"])
def test_readelf_has_nothing_to_complain(blob: bytes, tmp_path: Path) -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("needs binutils' readelf")
    (tmp_path / "file").write_bytes(blob)
    ran = subprocess.run([readelf, "-W", "-a", str(tmp_path / "file")], check=False,
                         capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and ran.stderr == ""
    assert "Warning" not in ran.stdout and "<corrupt" not in ran.stdout


def test_more_sections_than_a_half_word_counts() -> None:
    count = 0xFF10
    blob = relocatable([Section(f".d{i}", b"x", flags="AW") for i in range(count)],
                       [Symbol("last", f".d{count - 1}", size=1, type="OBJECT", binding="GLOBAL")])
    elf = ELFFile(io.BytesIO(blob))
    assert elf.num_sections() == count + 5
    table = section(elf, ".symtab")
    symbol = table.get_symbol_by_name("last")[0]
    assert symbol["st_shndx"] == 0xFFFF
    assert section(elf, ".symtab_shndx").get_section_index(1) == count


def test_a_name_declared_nowhere_is_an_error() -> None:
    with pytest.raises(KeyError, match="neither a symbol nor a section"):
        relocatable([Section(".text", bytes(4), relocations=[Rel(0, "PC32", "typo")])])
    with pytest.raises(KeyError, match="two sections"):
        relocatable([Section(".text"), Section(".text")])
