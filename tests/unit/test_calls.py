"""Calls of other units through the slot: which calls, which functions offer it, and what each linker makes of it."""
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hotreload_tool import elf, names
from hotreload_tool.arch import x86_64
from hotreload_tool.elf import Elf, Rela
from hotreload_tool.instrument import Options, instrument

FLAGS = ["-O2", "-g", "-ffunction-sections", "-fno-plt"]
CALLER = """
extern int plain(int), archived(int), weakly(int), twice(int); int puts(const char *);
__attribute__((weak)) int nowhere(int);
static __thread int own;
int main(void) {
  int sum = plain(1) + archived(2) + weakly(4) + twice(8) + own;
  if (nowhere) sum += nowhere(1000);
  puts(sum == 15 + 1111 ? "right" : "wrong");
  return sum != 15 + 1111;
}
"""
CALLEES = """
int plain(int n) { return n + 1; }
__attribute__((weak)) int weakly(int n) { return n + 10; }
"""
ARCHIVED = "int archived(int n) { return n + 100; }"
UNINSTRUMENTED = "int twice(int n) { return n + 1000; }"
LINKERS = [name for name, program in (("bfd", "ld.bfd"), ("gold", "ld.gold"), ("lld", "ld.lld"), ("mold", "mold"))
           if shutil.which(program)]


def compiled(folder: Path, name: str, text: str, *flags: str, kind: str = "plt", ours: bool = True) -> Path:
    made = folder / f"{name}.o"
    subprocess.run(["gcc", *FLAGS, "-fPIE", *flags, "-x", "c", "-c", "-", "-o", made], input=text, text=True, check=True)
    if ours:
        made.write_bytes(instrument(made.read_bytes(), f"{name}.o", Options(stubs=kind))[0])
    return made


def calls(obj: Elf) -> dict[str, Rela]:
    """What calls through words go through -> the relocation."""
    found = {}
    for section in obj.sections:
        if section.flags & elf.SHF_EXECINSTR:
            found.update({obj.symbols[r.symbol].name: r for r in obj.relocations(section)
                          if x86_64.goes_through_word(section.data, r.offset) and r.type in (x86_64.PC32, *x86_64.GOT)
                          and not obj.symbols[r.symbol].name.endswith(names.SLOT_SUFFIX)})
    return found


def test_a_call_of_another_unit_goes_through_a_word_of_its_own(tmp_path: Path) -> None:
    obj = elf.read(compiled(tmp_path, "m", CALLER))
    found = calls(obj)
    assert set(found) == {f"{n}.hr_call" for n in ("plain", "archived", "weakly", "twice", "nowhere", "puts")}
    assert {(r.type, r.addend) for r in found.values()} == {(x86_64.PC32, -4)}
    groups = {signature.name: members for _, signature, members in obj.groups()}
    for name in found:
        word, = (s for s in obj.symbols if s.name == name)
        home = obj.sections[word.shndx]
        assert (word.binding, word.visibility, home.name) == (elf.STB_WEAK, elf.STV_HIDDEN, names.CALL_SECTION)
        assert home.index in groups[name] and len(home.data) == 8
        holds, = obj.relocations(home)
        assert (holds.type, obj.symbols[holds.symbol].name, holds.addend) == (x86_64.R_64, name.removesuffix(".hr_call"), 0)


def test_a_function_offers_its_slot_to_callers_unless_it_is_weak(tmp_path: Path) -> None:
    obj = elf.read(compiled(tmp_path, "c", CALLEES + "static int hidden(int n) { return n; } int (*kept)(int) = hidden;"))
    offered = {s.name: s for s in obj.symbols if s.name.endswith(names.CALL_SUFFIX)}
    slot, = (s for s in obj.symbols if s.name == "plain.hr_slot")
    assert list(offered) == ["plain.hr_call"]
    word = offered["plain.hr_call"]
    assert (word.shndx, word.value, word.binding, word.visibility) == (slot.shndx, 0, elf.STB_GLOBAL, elf.STV_HIDDEN)


def test_inline_functions_offer_it_in_their_group(tmp_path: Path) -> None:
    text = "inline __attribute__((noinline)) int f(int n) { return n; } int g() { return f(1) + 1; }"
    made = tmp_path / "i.o"
    subprocess.run(["g++", *FLAGS, "-fPIE", "-x", "c++", "-c", "-", "-o", made], input=text, text=True, check=True)
    obj = elf.parse(instrument(made.read_bytes(), "i.o")[0])
    word, = (s for s in obj.symbols if s.name == "_Z1fi.hr_call")
    assert word.binding == elf.STB_GLOBAL
    assert word.shndx in next(members for _, signature, members in obj.groups() if signature.name == "_Z1fi")


@pytest.mark.parametrize("flags", [["-fPIC"], ["-fPIE", "-g0"]], ids=["library", "unknown"])
def test_what_can_be_interposed_is_called_as_before(tmp_path: Path, flags: list[str]) -> None:
    found = calls(elf.read(compiled(tmp_path, "m", CALLER, *flags)))
    assert set(found) >= {"plain", "archived"} and all(r.type in x86_64.GOT for r in found.values())


def test_calls_that_linkers_replace_keep_their_shape(tmp_path: Path) -> None:
    text = 'extern __thread int there __attribute__((tls_model("global-dynamic"))); int get(void) { return there; }'
    obj = elf.read(compiled(tmp_path, "t", text))
    assert "__tls_get_addr" in calls(obj)
    assert not [s.name for s in obj.symbols if s.name == "__tls_get_addr.hr_call"]


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("order", ["caller first", "caller last"])
def test_the_linker_decides_what_a_call_goes_through(tmp_path: Path, linker: str, order: str) -> None:
    caller, callees = compiled(tmp_path, "m", CALLER), compiled(tmp_path, "c", CALLEES)
    plain = compiled(tmp_path, "p", UNINSTRUMENTED, ours=False)
    archive = tmp_path / "libarchived.a"
    subprocess.run(["ar", "rcs", archive, compiled(tmp_path, "a", ARCHIVED)], check=True)
    objects = [caller, callees, plain] if order == "caller first" else [plain, callees, caller]
    image = tmp_path / "image"
    subprocess.run(["gcc", "-pie", f"-fuse-ld={linker}", *objects, archive, "-o", image], check=True)
    assert subprocess.run([image], capture_output=True, text=True, check=True, timeout=60).stdout == "right\n"
    at = {s.name: s.value for s in elf.read(image).symbols}
    for name in ("plain", "archived"):
        assert at[f"{name}.hr_call"] == at[f"{name}.hr_slot"]     # no way by the stub
    for name in ("weakly", "twice", "puts"):
        assert at[f"{name}.hr_call"] not in {v for n, v in at.items() if n.endswith(names.SLOT_SUFFIX)}
