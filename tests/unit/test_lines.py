"""Lines of code from `.debug_line`: as pyelftools reads them, and from damaged bytes."""

from __future__ import annotations

import functools
import io
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from hotreload_tool.lines import LineTable

SOURCE = """
#include <stdio.h>
static inline int twice(int n) {
  return n + n; }
int f(int n) {
  for (int i = 0; i < n; i++)
    if (printf("%d", twice(i)) < 0)
      return 5;

  return n;
}
#line 70000
int g(int n) { return f(n) * 3; }
int main(void) { return g(2); }
"""


@functools.cache
def linked(*flags: str) -> bytes:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    with tempfile.TemporaryDirectory() as base:
        (Path(base) / "x.c").write_text(SOURCE)
        subprocess.run([gcc, "-ffunction-sections", *flags, "x.c", "-o", "x"], cwd=base, check=True, timeout=300)
        return (Path(base) / "x").read_bytes()


def debug_line(blob: bytes) -> bytes:
    section: Any = ELFFile(io.BytesIO(blob)).get_section_by_name(".debug_line")
    return bytes(section.data())


@pytest.mark.parametrize("flags", [("-g", "-O0"), ("-g", "-O2"), ("-g", "-O2", "-gdwarf-4")], ids=" ".join)
def test_lines_are_those_that_pyelftools_reads(flags: tuple[str, ...]) -> None:
    blob = linked(*flags)
    table = LineTable(debug_line(blob))
    unit = next(iter(ELFFile(io.BytesIO(blob)).get_dwarf_info().iter_CUs()))
    states = [e.state for e in unit.dwarfinfo.line_program_for_CU(unit).get_entries() if e.state]
    start, seen = None, 0
    for at, (state, following) in enumerate(zip(states, states[1:])):
        start = state.address if start is None else start
        if state.end_sequence:
            start = None
        elif state.address != following.address:
            same = {s.line for s in states[: at + 1] if s.address == state.address and not s.end_sequence}
            assert table.of_image(start, state.address) == same
            assert table.of_image(start, following.address - 1) == same
            seen += 1
    assert seen > 10
    assert table.of_image(1, 1) == frozenset()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_raises_nothing(data: st.DataObject) -> None:
    table = bytearray(debug_line(linked("-g", "-O2")))
    for _ in range(data.draw(st.integers(1, 6))):
        table[data.draw(st.integers(0, len(table) - 1))] = data.draw(st.integers(0, 255))
    damaged = LineTable(bytes(table[: data.draw(st.integers(0, len(table)))]))
    for address in (0, 0x1129, 1 << 63):
        assert all(isinstance(line, int) for line in damaged.of_image(address, address) | damaged.of_object("1", address))


@given(st.binary(max_size=64))
def test_any_bytes(data: bytes) -> None:
    assert LineTable(data).of_image(0, 0) >= frozenset()
