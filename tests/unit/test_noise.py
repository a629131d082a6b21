"""What is noise and what is a change, on what compilers and linkers really write."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hotreload_tool import elf, names
from hotreload_tool.arch import x86_64
from hotreload_tool.instrument import carried_map, instrument_file
from hotreload_tool.noise import NewObject, OldCode, Target, is_noise, is_same_data, same_but_time, why_not

COMMON = r"""
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#define STRING_(x) #x
#define STRING(x) STRING_(x)
#define HERE __FILE__ ":" STRING(__LINE__) ": "
#define APART __attribute__((noinline, noipa)) /* so that what is said of one function is not part of its callers too */
int note(const char *file, int line, const char *text);
int picked(int n);
int one, two;
static int hidden, other;
static __thread int mine, yours;
const char *where = "x";
/* above */
"""
ANOTHER_TIME = f"{(time.localtime().tm_hour + 12) % 24:02}:00:00"     # never that of the compilation
IN_C = COMMON + r"""
APART int asserts(int n) { assert(n > 3); return n * 2; }
APART int logs(int n) { note(__FILE__, __LINE__, "logs"); return n; }
APART int speaks(int n) { puts(HERE "speaks"); fprintf(stderr, "%d retries of 3\n", n); return n; }
APART int born(void) { return puts("since " __DATE__ " " __TIME__); }
APART int dated(void) { return puts("Jan  1 2001, ANOTHER_TIME"); }
APART int counts(int n) { static int counted; assert(n); return ++counted + hidden++ + mine++; }
APART int chooses(int n)
{
  assert(n != 77);
  switch (n) {
    case 0: return picked(3); case 1: return one; case 2: return note("a", 11, "b"); case 3: return two;
    case 4: return picked(n); case 5: abort(); case 6: return hidden; case 7: return mine;
  }
  return 0;
}
APART static int helper(int n) { assert(n); return n + one; }
APART static int helped(int n) { return n + two; }
APART int calls(int n) { assert(n < 9); return helper(n) + helper(2) + helped(1); }
APART int passes(int n) { note("passes", 500, "x"); assert(n); return n; }
APART int recurses(int n) { assert(n >= 0); return n ? recurses(n - 1) + n : 0; }
APART double halves(double x) { assert(x > 0); return x * 0.375; }
int main(void) { hidden++; other++; mine++; yours++;
  return asserts(9) + logs(1) + speaks(1) + born() + dated() + counts(1) + chooses(1) + calls(1) + passes(1)
  + recurses(2) + (int)halves(3) + yours + other; }
APART int note(const char *file, int line, const char *text) { where = file; return line + text[0]; }
APART int picked(int n) { return n; }
""".replace("ANOTHER_TIME", ANOTHER_TIME)
IN_CC = COMMON + r"""
#include <stdexcept>
#include <string>
struct Guard { std::string s; ~Guard() { where = s.c_str(); } };
APART int catches(int n)
{
  Guard guard{"g"};
  assert(n != 4);
  try {
    if (picked(n))
      throw std::out_of_range("far");
  } catch (const std::out_of_range &e) {
    return note(e.what(), __LINE__, "range");
  } catch (const std::runtime_error &e) {
    return 2;
  }
  return 1;
}
struct Shape { virtual int area() const { assert(one != 3); return 1; } virtual ~Shape() {} };
int main() { hidden++; other++; mine++; yours++; return catches(1) + Shape().area() + hidden + other + mine + yours; }
APART int note(const char *, int line, const char *) { return line; }
APART int picked(int n) { return n; }
"""
DOWN = ("/* above */", "/* above */\n\n\n")
FLAGS = ["-O0", "-O2", "-Os", "-O2 -fno-pie -no-pie", "-O3 -gdwarf-4"]


@functools.cache
def compilers() -> list[str]:
    return [c for c in ("gcc", "clang") if shutil.which(c)]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def build(folder: Path, source: str, suffix: str, compiler: str, flags: str) -> Path:
    """An instrumented object, compiled in a fixed place so that nothing but the source differs."""
    where = folder / f"{compiler}{flags.replace(' ', '')}"
    where.mkdir(exist_ok=True, parents=True)
    (where / f"x.{suffix}").write_text(source)
    words = [compiler, *flags.replace("-no-pie", "").split(), "-g", "-w", "-ffunction-sections", "-fdata-sections", "-fno-common"]
    subprocess.run([*words, "-c", f"x.{suffix}", "-o", "x.o"], cwd=where, check=True, timeout=300)
    instrument_file(where / "x.o", object_name="x.o")
    return where / "x.o"


def link(obj: Path, suffix: str, compiler: str, flags: str) -> OldCode:
    driver = compiler + "++" if suffix == "cc" and compiler == "clang" else "g++" if suffix == "cc" else compiler
    pie = "-no-pie" if "-no-pie" in flags else "-pie"
    subprocess.run([driver, pie, "x.o", "-o", "x"], cwd=obj.parent, check=True, timeout=300)
    return OldCode(elf.read(obj.parent / "x"))


class Pair:
    """Two versions of one source: the image of the old one, the object of the new one."""

    def __init__(self, folder: Path, old: str, new: str, suffix: str, compiler: str, flags: str) -> None:
        if compiler not in compilers():
            pytest.skip(f"needs {compiler}")
        before = build(folder, old, suffix, compiler, flags)
        self.old = link(before, suffix, compiler, flags)
        was = carried_map(before)
        path = build(folder, new, suffix, compiler, flags)
        now = carried_map(path)
        assert was is not None and now is not None
        self.new = NewObject(path)
        digests = {f.name: f.digest for f in was.functions}
        self.differ = {f.name for f in now.functions if digests.get(f.name, f.digest) != f.digest}
        self.symbols = {s.name.partition("@")[0]: s for s in self.old.file.symbols if s.defined and s.name}

    def why(self, name: str) -> str | None:
        """Why the function whose source name is `name` is no noise."""
        full = next(f"{name}{tail}" for tail in ("", "~x.o") if f"{name}{tail}{names.SLOT_SUFFIX}" in self.symbols)
        body = self.symbols.get(name + names.BODY_SUFFIX) or self.symbols[name]
        return why_not(full, self.new, self.old, body.value, body.size, self.resolve)

    def resolve(self, name: str) -> Target | None:
        symbol = self.symbols.get(name)
        if symbol is None:
            return None
        if symbol.type == elf.STT_TLS:
            tls = [s for s in self.old.file.sections if s.flags & elf.SHF_TLS]
            size = max(s.addr + s.size for s in tls) - min(s.addr for s in tls)
            return Target(x86_64.tls_offset(symbol.value, size, max(s.align for s in tls)), True)
        return Target(symbol.value)

    def changes(self) -> dict[str, str]:
        """Functions that are no noise, as the source calls them, of those that differ."""
        plain = {name: name.partition("~")[0] for name in self.differ}
        return {short: why for name, short in plain.items() if (why := self.why(short)) is not None}


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("suffix", ["c", "cc"])
def test_moved_lines_are_noise(folder: Path, suffix: str, compiler: str, flags: str) -> None:
    source = IN_C if suffix == "c" else IN_CC
    pair = Pair(folder, source, source.replace(*DOWN), suffix, compiler, flags)
    least = {"asserts", "logs", "calls", "recurses", "halves"} if suffix == "c" else {"_Z7catchesi"}
    assert least <= {n.partition("~")[0] for n in pair.differ}, "the case is no case without functions that differ"
    # clang's handler keeps the line in a register over a call, and refers to types through data of its own: in doubt, a change.
    assert pair.changes().keys() <= ({"_Z7catchesi"} if (suffix, compiler) == ("cc", "clang") else set())


REAL = {
    "another constant": ("return n * 2;", "return n * 4;", "asserts"),
    "a line of elsewhere": ('note("passes", 500,', 'note("passes", 503,', "passes"),
    "a constant that is returned": ('return note("a", 11, "b")', 'return note("a", 14, "b")', "chooses"),
    "another callee": ("+ helped(1)", "+ helper(1)", "calls"),
    "another library function": ('puts(HERE "speaks")', 'perror(HERE "speaks")', "speaks"),
    "another stream": ("fprintf(stderr", "fprintf(stdout", "speaks"),
    "a number in a text": ("retries of 3", "retries of 6", "speaks"),
    "another text": ('"logs"', '"Logs"', "logs"),
    "a date that somebody wrote": ("Jan  1 2001", "Jan  2 2001", "dated"),
    "a time that somebody wrote": (ANOTHER_TIME, ANOTHER_TIME[:-1] + "3", "dated"),
    "another variable": ("counted + hidden++", "counted + other++", "counts"),
    "another thread-local": ("+ mine++", "+ yours++", "counts"),
    "another case": ("case 1: return one;", "case 1: return two;", "chooses"),
    "cases swapped": ("case 1: return one; case 2:", "case 2: return one; case 1:", "chooses"),
    "another floating constant": ("0.375", "0.625", "halves"),
}


@pytest.mark.parametrize("flags", ["-O0", "-O2", "-O2 -fno-pie -no-pie"])
@pytest.mark.parametrize("case", REAL)
def test_a_change_is_no_noise_though_lines_move_too(folder: Path, case: str, flags: str) -> None:
    old, new, function = REAL[case]
    assert IN_C.count(old) == 1
    pair = Pair(folder, IN_C, IN_C.replace(*DOWN).replace(old, new), "c", "gcc", flags)
    assert function in {n.partition("~")[0] for n in pair.differ}
    changed = pair.changes()
    assert function in changed and changed.keys() <= {function, "main"}


@pytest.mark.parametrize("flags", ["-O0", "-O2"])
@pytest.mark.parametrize("edit", [("const std::runtime_error &", "const std::logic_error &"), ("return 2;", "return 3;")])
def test_what_is_caught_is_no_noise(folder: Path, edit: tuple[str, str], flags: str) -> None:
    pair = Pair(folder, IN_CC, IN_CC.replace(*DOWN).replace(*edit), "cc", "gcc", flags)
    assert set(pair.changes()) == {"_Z7catchesi"}


def test_time_of_compilation_is_noise_only_if_it_is_that_time() -> None:
    made = datetime(2026, 1, 2, 0, 3, 7)
    old = b"built Jan  1 2026 11:22:33."
    assert same_but_time(b"built Jan  2 2026 00:03:01.", old, made)
    assert same_but_time(b"built Jan  1 2026 23:59:01.", old, made), "begun before midnight"
    assert not same_but_time(b"built Jan  2 2026 00:04:01.", old, made), "after the object was made"
    assert not same_but_time(b"built Dec 30 2025 00:03:01.", old, made)
    assert not same_but_time(b"begun Jan  2 2026 00:03:01.", old, made)
    assert not same_but_time(b"built Jan  2 2026 99:03:01.", old, made)
    assert not same_but_time(b"at 00:03:01 00:03:01", b"at 00:03:01", made)


@pytest.mark.parametrize("flags", ["-O0", "-O2", "-O2 -fno-pie -no-pie"])
def test_data_that_holds_the_time_of_compilation(folder: Path, flags: str) -> None:
    text = 'const char built[] = "on " __DATE__; const char *at = "at " __TIME__;'
    text += "struct {int a; const char *b;} t = {1, __TIME__};"
    new = IN_C + text
    old = IN_C + text.replace("__DATE__", '"Feb  3 2004"').replace("__TIME__", '"05:06:07"')
    pair = Pair(folder, old, new, "c", "gcc", flags)
    for name in ("built", "at", "t"):
        symbol = pair.symbols[name]
        assert is_same_data(name, pair.new, pair.old, symbol.value, symbol.size, pair.resolve), name
    other = Pair(folder, old, new.replace('"on "', '"of "').replace('"at "', '"in "').replace("{1,", "{2,"), "c", "gcc", flags)
    for name in ("built", "at", "t"):
        symbol = other.symbols[name]
        assert not is_same_data(name, other.new, other.old, symbol.value, symbol.size, other.resolve), name
    symbol = pair.symbols["built"]
    assert not is_same_data("nothing", pair.new, pair.old, symbol.value, symbol.size, pair.resolve)


def test_time_macros_are_noise(folder: Path) -> None:
    moment = datetime.now()
    old = IN_C.replace("__DATE__", '"Feb  3 2004"').replace("__TIME__", '"05:06:07"')
    pair = Pair(folder, old, IN_C, "c", "gcc", "-O2")
    assert pair.differ == {"born"} and pair.why("born") is None
    os.utime(folder / "gcc-O2" / "x.o", (moment.timestamp() - 86400,) * 2)
    assert NewObject(folder / "gcc-O2" / "x.o").made < moment


@pytest.mark.parametrize(("said", "noise"), [("another", True), ("elsewhere", False)])
def test_the_directory_of_the_build_is_noise(folder: Path, said: str, noise: bool) -> None:
    """A macro that holds the absolute path of the source; built in one place, then in another."""
    one = Pair(folder / "one", *[IN_C.replace('"logs"', f'"{folder}/one/gcc-O2/x.c"')] * 2, "c", "gcc", "-O2")
    text = IN_C.replace('"logs"', f'"{folder}/{said}/gcc-O2/x.c"')
    two = Pair(folder / "another", text, text, "c", "gcc", "-O2")
    one.new = two.new
    assert (one.why("logs") is None) == noise


def test_files_without_line_information_or_with_damage_give_no_noise(folder: Path) -> None:
    pair = Pair(folder, IN_C, IN_C.replace(*DOWN), "c", "gcc", "-O2")
    assert pair.why("asserts") is None
    body = pair.symbols["asserts" + names.BODY_SUFFIX]
    assert not is_noise("asserts", pair.new, pair.old, body.value, body.size + 1, pair.resolve)
    assert not is_noise("asserts", pair.new, pair.old, body.value + 1, body.size, pair.resolve)
    assert not is_noise("asserts", pair.new, pair.old, 1 << 40, body.size, pair.resolve)
    assert not is_noise("nobody", pair.new, pair.old, body.value, body.size, pair.resolve)
    calls = pair.symbols["calls" + names.BODY_SUFFIX]
    assert is_noise("calls", pair.new, pair.old, calls.value, calls.size, pair.resolve)
    assert not is_noise("calls", pair.new, pair.old, calls.value, calls.size, lambda name: None)
    for section in pair.old.file.sections:
        if section.name == ".debug_line":
            section.data = section.data[: len(section.data) // 3]
    blind = OldCode(pair.old.file)
    why = why_not("asserts", pair.new, blind, body.value, body.size, pair.resolve)
    assert why is not None and why.endswith("is not the line of the old code")


@given(st.sampled_from([b"", b"\x66", b"\x40", b"\x41", b"\x47", b"\x48", b"\x49", b"\x4f", b"\x67", b"\x66\x41"]),
       st.one_of(st.integers(0xB8, 0xBF), st.sampled_from([0x68, 0x6A, 0xC6, 0xC7])), st.integers(0, 255), st.integers(0, 255),
       st.binary(min_size=12, max_size=12))
@example(b"", 0xC7, 0x44, 0x24, bytes(12))
@example(b"\x48", 0xC7, 0x84, 0x64, bytes(12))
@example(b"\x41", 0xB8, 0, 0, bytes(12))
@example(b"\x49", 0xC7, 0xC0, 0, bytes(12))
@settings(max_examples=400, deadline=None)
def test_every_byte_of_an_argument_may_be_one(prefix: bytes, opcode: int, mode: int, base: int, rest: bytes) -> None:
    code = prefix + bytes([opcode, mode, base]) + rest
    size = next((size for _, size in x86_64.instructions(code)), 0)
    for behind in (b"", b"\x90\x55"):
        found = x86_64.argument(code[:size]) if size else None
        if found is not None:
            _, at, width = found
            assert all(x86_64.may_be_in_argument(behind + code, len(behind) + p) for p in range(at, at + width)), code.hex()


def test_a_changed_instruction_is_seen_without_a_disassembler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Pair(folder, "int f(int x) { return x + 5; }\nint main() {}\n", "int f(int x) { return x - 7; }\nint main() {}\n",
                "c", "gcc", "-O2")
    other = Pair(folder / "other", "int f() { return 4711; }\nint main() {}\n", "int f() { return 815; }\nint main() {}\n",
                 "c", "gcc", "-O0")
    monkeypatch.setattr(x86_64, "_engine", lambda: pytest.fail("it was loaded"))
    for pair in (one, other):
        assert pair.differ == {"f"} and pair.why("f") == "another instruction"
