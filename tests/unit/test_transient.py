"""Which payloads may be unmapped one day, and which strings need not come along: on files that the compiler makes."""
from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hotreload_tool import elf, literals, transient
from hotreload_tool.arch import x86_64

SCRIPT = """
SECTIONS {
  . = 0x1000;
  .rela.dyn : { *(.rela.*) }
  .text : { *(.text .text.*) }
  .hr.jumps : { *(.rodata.hr_jumps) }
  .rodata : { *(.rodata .rodata.*) }
  .hotreload.payload : { KEEP(*(.hotreload.payload)) }
  .data.rel.ro : { *(.data.rel.ro .data.rel.ro.*) }
  .dynamic : { *(.dynamic) }
  .got : { *(.got .got.plt) }
  .data : { *(.data .data.*) }
  .bss : { *(.bss .bss.*) }
}
"""
TABLES = '__asm__(".pushsection .hotreload.payload,\\"aw\\"\\n.quad f\\n.popsection");\n'
SWITCH = """
extern int a(void), b(void), c(void), d(void), e(void), g(void);
int f(int x) {
  switch (x) { case 0: return a(); case 1: return b() * 3; case 2: return c() - 1; case 3: return d() * d();
               case 4: return e() + 2; case 5: return g() * 7; default: return x; }
}
"""


def compiled(folder: Path, source: str) -> elf.Elf:
    (folder / "f.c").write_text(TABLES + source)
    subprocess.run(["gcc", "-O2", "-fPIC", "-fdata-sections", "-ffunction-sections", "-fno-asynchronous-unwind-tables",
                    "-fvisibility=hidden", "-c", "f.c", "-o", "f.o"], cwd=folder, check=True, timeout=60)
    return elf.read(folder / "f.o")


def is_transient(folder: Path, source: str, kind: str = "pie") -> bool:
    obj = compiled(folder, source)
    transient.set_jump_tables_apart(obj, x86_64)
    (folder / "g.o").write_bytes(obj.to_bytes())
    (folder / "script").write_text(SCRIPT)
    subprocess.run(["gcc", "-shared", "-nostdlib", "-Wl,-T,script,--build-id=none,--no-eh-frame-hdr", "-o", "f.so", "g.o"],
                   cwd=folder, check=True, timeout=60)
    out = elf.read(folder / "f.so")
    end = max(s.addr + s.size for s in out.sections if s.flags & elf.SHF_ALLOC)
    return transient.is_transient(out, kind, 0x1000, end, x86_64)


@pytest.mark.parametrize("source", [
    "int f(int x) { return x * 3; }",
    "int puts(const char *); int f(const char *s) { return puts(s) + puts(s); }",
    "double f(double x) { return x * 2.5; }",                                  # loads a constant, and never makes its address
    SWITCH,
])
def test_nothing_else_is_referred_to(tmp_path: Path, source: str) -> None:
    assert is_transient(tmp_path, source)
    assert not is_transient(tmp_path, source, "exec")


@pytest.mark.parametrize("source", [
    'const char *f(void) { return "some new text"; }',
    "static int calls; int f(void) { return ++calls; }",
    "static int calls = 7; int f(void) { return calls++; }",
    'static const char *const names[] = {"one", "two", "three"}; const char *f(int i) { return names[i]; }',
    "const int *f(void) { static const int table[] = {1, 2, 3}; return table; }",
    "void *f(void) { here: __asm__ volatile goto(\"\" : : : : here); return &&here; }",
    SWITCH + "const int *h(void) { static const int table[] = {1, 2, 3}; return table; }",
])
def test_the_program_could_have_an_address_of_it(tmp_path: Path, source: str) -> None:
    assert not is_transient(tmp_path, source)


# ---- strings ------------------------------------------------------------------------------------------------------


def image(folder: Path, named: list[tuple[int, int]]) -> literals.Literals:
    """A file whose .rodata at 0x5000 holds "hello" twice and "world"."""
    file = elf.Elf.new("image")
    file.add_section(elf.Section(".rodata", elf.SHT_PROGBITS, elf.SHF_ALLOC, b"hello\0\0\0hello\0world\0", addr=0x5000, align=8))
    (folder / "image").write_bytes(file.to_bytes())
    data = {str(i): SimpleNamespace(address=at, size=size, extent=size) for i, (at, size) in enumerate(named)}
    live: Any = SimpleNamespace(path=str(folder / "image"), data=data, index=None)
    return literals.Literals(live)


def test_strings_are_found_where_nothing_writes(tmp_path: Path) -> None:
    plain = image(tmp_path, [])
    assert plain.find(b"hello", 1) == 0x5000
    assert plain.find(b"lo", 1) == 0x5003
    assert plain.find(b"world", 1) == 0x500E and plain.find(b"world", 8) is None
    assert plain.find(b"word", 1) is None
    patched = image(tmp_path, [(0x5000, 6)])       # a constant of the program, which a patch may write over
    assert patched.find(b"hello", 1) == 0x5008
    assert image(tmp_path, [(0x5000, 32), (0x5004, 1)]).find(b"world", 1) is None


def test_references_go_to_the_living_string(tmp_path: Path) -> None:
    obj = compiled(tmp_path, 'int puts(const char *); int f(void) { return puts("hello") + puts("new"); }')
    home = obj.add_section(elf.Section(".hr.image", elf.SHT_NOBITS, elf.SHF_ALLOC))
    literals.reuse(obj, home, image(tmp_path, []), "hr_literal.0")
    code = next(s for s in obj.sections if s.name == ".text.f")
    targets = [obj.symbols[r.symbol] for r in obj.relocations(code)]
    living = [s for s in targets if s.shndx == home.index]
    assert [s.value for s in living] == [0x5000] and living[0].name.startswith("hr_literal.0.")
    assert any(obj.sections[s.shndx].flags & elf.SHF_STRINGS for s in targets if 0 < s.shndx < len(obj.sections))
