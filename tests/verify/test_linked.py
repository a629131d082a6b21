"""The verifier's reader of linked files: what it says of real ones is what pyelftools says."""
from __future__ import annotations

import io
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from bundles import Made
from elftools.elf.elffile import ELFFile

from hotreload_tool.verify.linked import Linked
from hotreload_tool.verify.side import Side
from hotreload_tool.verify.space import Space

_LIBRARIES = ("/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6")


def _files(made: Made) -> list[bytes]:
    with zipfile.ZipFile(made.bundles[0]) as archive:
        payload = archive.read("payload-0.so")
    return [made.image.read_bytes(), payload, *(Path(p).read_bytes() for p in _LIBRARIES if Path(p).exists())]


def test_it_reads_what_pyelftools_reads(made: Made) -> None:
    for data in _files(made):
        ours, theirs = Linked(data, "a file"), ELFFile(io.BytesIO(data))
        assert (ours.type, ours.entry, ours.machine) == (theirs["e_type"], theirs["e_entry"], 62)
        assert [_segment(s) for s in theirs.iter_segments()] == [tuple(s)[1:] for s in ours.segments]
        kinds = {s["p_type"] for s in theirs.iter_segments()}
        assert {"PT_LOAD", "PT_DYNAMIC", "PT_GNU_STACK", "PT_GNU_RELRO"} <= kinds
        assert all(s.type == t["p_type"] for s, t in zip(ours.segments, theirs.iter_segments()) if not s.type.startswith("0x"))
        assert [_section(s) for s in theirs.iter_sections()] == [tuple(s) for s in ours.sections]
        table = theirs.get_section_by_name(".symtab")
        assert [_symbol(s) for s in table.iter_symbols()] == [tuple(s)[:3] for s in ours.symbols] if table else not ours.symbols


def _segment(s: Any) -> tuple[int, ...]:
    return (s["p_flags"], s["p_offset"], s["p_vaddr"], s["p_filesz"], s["p_memsz"], s["p_align"])


def _section(s: Any) -> tuple[object, ...]:
    return (s.name, s["sh_flags"], s["sh_addr"], s["sh_size"], s["sh_type"] == "SHT_NOBITS", s["sh_offset"], s["sh_link"])


def _symbol(s: Any) -> tuple[object, ...]:
    return s.name, s["st_value"], s["st_size"]


PACKED = """
int one, two;
int *const table[] = {&one, &two, 0, &one, &two, &one};
const char *words[70] = {"a", "b", [40] = "c", [69] = "d"};
int main(void) { return table[0] != &one || words[69][0] != 'd'; }
"""


def test_packed_relocations_are_what_pyelftools_unpacks(tmp_path: Path) -> None:
    source, program = tmp_path / "a.c", tmp_path / "a"
    source.write_text(PACKED)
    done = subprocess.run(["gcc", "-O1", "-fPIE", "-pie", "-Wl,-z,pack-relative-relocs", source, "-o", program], timeout=60,
                          capture_output=True, text=True)
    theirs = ELFFile(io.BytesIO(program.read_bytes())).get_section_by_name(".relr.dyn") if program.exists() else None
    if theirs is None:
        pytest.skip(f"this linker packs none: {done.stderr}")
    ours = Linked(program.read_bytes(), "a program")
    assert ours.relative_words == {r["r_offset"] for r in theirs.iter_relocations()}
    table, words = (next(s.value for s in ours.symbols if s.name == name) for name in ("table", "words"))
    expected = {table + 8 * i for i in (0, 1, 3, 4, 5)} | {words + 8 * i for i in (0, 1, 40, 69)}
    assert {at for at in ours.relative_words if table <= at < table + 48 or words <= at < words + 560} == expected
    side = Side(Space(ours))
    assert [side.pointer(at) is not None for at in range(table, table + 48, 8)] == [True, True, False, True, True, True]
