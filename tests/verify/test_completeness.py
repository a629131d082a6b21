"""Image + bundles ≡ new image: shown for patches of every kind, and refuted for each way in which it can fail."""
from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from bundles import Broken, Made, case_of, installed, make
from casetools import Configuration, all_cases, configurations, read_case

from hotreload_tool import cli
from hotreload_tool.errors import Refused
from hotreload_tool.verify import Given, completeness, lockstep, verify
from hotreload_tool.verify.completeness import Comparison
from hotreload_tool.verify.instructions import Instruction, offset_loaded
from hotreload_tool.verify.linked import Linked
from hotreload_tool.verify.redirects import _targets
from hotreload_tool.verify.side import Side
from hotreload_tool.verify.tables import Payload

FULL = os.environ.get("HOTRELOAD_TEST_SIZE") == "full"
# Of the cases in tests/cases those that try the comparison most; all of them in the full size.
SOME = {"cc-exceptions", "cc-virtual", "cold-change", "jump-table", "static-local-swap", "thread-local-new"}
CONFIGURATIONS = configurations(FULL) if FULL else [c for c in configurations(False) if str(c) != "gcc -O0 pie"]


def compared(made: Made, generations: int, new: Path, change: Callable[[Broken], object] | None = None) -> Comparison:
    """The process with the first `generations` bundles, the last of them changed, beside `new`."""
    payloads = [Broken.of(bundle) for bundle in made.bundles[:generations]]
    if change is not None:
        change(payloads[-1])
    return completeness.compare(Linked(made.image.read_bytes(), "image"), [Payload(b.file) for b in payloads],
                                Linked(new.read_bytes(), "new"))


def is_complete(found: Comparison) -> bool:
    return not (found.missing or found.different or found.extra)


# ---- what is complete -------------------------------------------------------------------------------------------


@pytest.mark.both_kinds
@pytest.mark.parametrize("generation", [1, 2])
def test_the_patched_process_is_the_new_image(made: Made, generation: int) -> None:
    found = compared(made, generation, made.new[generation - 1])
    assert is_complete(found), found
    assert {"first", "second", "third", "answer", "limits", "main"} <= found.same.keys()
    assert all(len(digest) == 32 for digest in found.same.values())


def _cases() -> Iterator[object]:
    for configuration in CONFIGURATIONS:
        for folder in all_cases():
            if (FULL or folder.name in SOME) and read_case(folder).runs_in(configuration):
                yield pytest.param(folder, configuration, id=f"{folder.name}-{str(configuration).replace(' ', '')}")


@pytest.mark.parametrize("folder, configuration", list(_cases()))
def test_every_patch_of_a_case_is_complete(folder: Path, configuration: Configuration, tmp_path: Path,
                                           shared_folder: Path) -> None:
    case = read_case(folder)
    case.versions = [v for v in case.versions if v.number == 1 or (v.value("Patch", configuration) or "") == "ok"]
    try:
        made = make(case, configuration, tmp_path, shared_folder)
    except Refused:
        pytest.fail("an edit that a case says is taken was refused")
    for number, new in enumerate(made.new, 1):
        verdict = verify(made.bundles[number - 1], Given([made.image], made.bundles[:number - 1], [new]))
        assert verdict.sound, [(o.check, o.problems) for o in verdict.of("failed")]
        before = compared(made, number - 1, new) if number > 1 else completeness.compare(
            Linked(made.image.read_bytes(), "image"), [], Linked(new.read_bytes(), "new"))
        assert not is_complete(before) or before.kept or before.noise, "without the patch nothing seems to differ"


# ---- what is not ------------------------------------------------------------------------------------------------


def test_a_generation_that_was_not_applied(made: Made) -> None:
    found = compared(made, 1, made.new[1])
    assert found.different.keys() == {"first"} and not found.missing and not found.extra
    image = completeness.compare(Linked(made.image.read_bytes(), "image"), [], Linked(made.new[0].read_bytes(), "new"))
    assert image.missing == ["third", "times~main.o"] and {"first", "second", "limits"} <= image.different.keys()


def test_a_bundle_for_another_source(made: Made) -> None:
    """The new image lacks what the bundle brings."""
    found = compared(made, 1, made.image)
    assert found.extra == ["third", "times~main.o"] and {"first", "second", "limits"} <= found.different.keys()


def _multiplier(b: Broken) -> None:
    """`7 * n` of `second` becomes `6 * n` or the like: one bit of one instruction."""
    redirect = max(b.tables.redirects, key=lambda r: r.new_size)
    code = bytearray(b.read(redirect.new, redirect.new_size))
    code[0] = 0x90
    b.write(redirect.new, bytes(code))


def _constant(b: Broken) -> None:
    update = next(u for u in b.tables.updates if u.flags == 1)
    b.write(update.new_content, b"\x63")


def _merged_content(b: Broken) -> None:
    """A variable takes neither its old value nor the new one."""
    update = next(u for u in b.tables.updates if u.flags == 2)
    b.write(update.new_content, b"\x63")


def _called_function(b: Broken) -> None:
    """`second` calls `answer` instead of `plain`."""
    for r in b.tables.redirects:
        for at, size, target, branch in _targets(b.read(r.new, r.new_size), r.new):
            if branch and size == 5 and b.file.load_of(target) is None:
                return b.write(at + 1, struct.pack("<i", _stub_of("answer") - at - 5))
    raise AssertionError("nothing calls the image")


def _description(b: Broken) -> None:
    """It goes on behind the function."""
    code = next(s.value for s in b.file.symbols if s.name == "second.hr_new")
    at = b.description_of(code) + 12
    b.write(at, struct.pack("<I", struct.unpack("<I", b.read(at, 4))[0] + 1))


def _import(b: Broken) -> None:
    b.rename("strlen", "atoll\0")


_image: list[Linked] = []


def _stub_of(name: str) -> int:
    return next(s.value for s in _image[0].symbols if s.name == name and s.defined)


@pytest.mark.parametrize("change, name, says", [
    pytest.param(_multiplier, "", "at +0x0", id="an-instruction"),
    pytest.param(_constant, "limits", "byte", id="a-constant"),
    pytest.param(_merged_content, "weights~main.o", "what is written to it at", id="a-variable"),
    pytest.param(_called_function, "second", "goes to plain there, to answer", id="a-call"),
    pytest.param(_import, "second", "strlen", id="an-import"),
    pytest.param(_description, "second", "unwind description", id="an-unwind-description"),
])
def test_one_thing_that_differs_is_found_and_named(made: Made, change: Callable[[Broken], object], name: str, says: str) -> None:
    _image[:] = [Linked(made.image.read_bytes(), "image")]
    found = compared(made, 1, made.new[0], change)
    assert len(found.different) == 1 and not found.missing and not found.extra, found
    (where, why), = found.different.items()
    assert where == name or not name
    assert says in why


LITERALS = """
#include "case.h"
NOINLINE const char *greeting(void) { return "good morning"; }
NOINLINE double factor(double x) { return x * 1.5 + 0.25; }
static int other(int n) { return n + 1; }
static int one(int n) { return n; }
int (*const table[2])(int) = {one, other};
NOINLINE const char *kind(int n) {
  switch (n) { case 1: return "first"; case 2: puts("b"); return "second"; case 3: puts("c"); return "third";
               case 4: return "fourth"; case 5: return line_of(n); case 6: puts("f"); return "six"; default: return "none"; } }
void answer(const char *line) { printf("%s %s %f %d\\n", greeting(), kind((int)strlen(line)), factor(2.0), table[1](3)); }
""".replace("NOINLINE const char *greeting", "NOINLINE const char *line_of(int n) { return n ? \"line\" : \"\"; }\n"
            "NOINLINE const char *greeting")


@pytest.mark.parametrize("old, new, name", [
    ("good morning", "good evening", "greeting"), ("1.5", "2.5", "factor"), ("{one, other}", "{other, one}", "table"),
    ('"fourth"', '"fifth!"', "kind"), ("case 1:", "case 7:", "kind")])
def test_literals_and_tables_are_looked_into(old: str, new: str, name: str, tmp_path: Path, shared_folder: Path) -> None:
    """The patch is another one than the source says: what it lacks is in a string, a number, a table of pointers or of jumps."""
    configuration = Configuration.parse("gcc -O2 pie")
    changed = LITERALS.replace("n + 1", "n + 2")
    case = case_of(tmp_path / "case", LITERALS, changed, changed.replace(old, new, 1))
    made = make(case, configuration, tmp_path / "build", shared_folder)
    assert is_complete(compared(made, 1, made.new[0])) and is_complete(compared(made, 2, made.new[1]))
    found = compared(made, 1, made.new[1])
    assert name in found.different and not found.missing and not found.extra, found


UNUSED = """
#include "case.h"
int nobody_calls(int n) { return n * 77; }
void answer(const char *line) { puts(line); }
"""


def test_what_nothing_reaches_is_told_and_not_missed(tmp_path: Path, shared_folder: Path) -> None:
    first = UNUSED.replace("int nobody_calls(int n) { return n * 77; }\n", "")
    case = case_of(tmp_path / "case", first, UNUSED.replace("puts(line)", "puts(line + 1)"))
    made = make(case, Configuration.parse("gcc -O2 pie"), tmp_path / "build", shared_folder)
    found = compared(made, 1, made.new[0])
    assert is_complete(found) and found.unreached == ["nobody_calls"]


# ---- by the command ---------------------------------------------------------------------------------------------


def test_against(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["verify", str(made.bundles[0]), "--image", str(made.image), "--strict", "--json", "--against"]
    assert cli.main([*words, str(made.new[0])]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["completeness"]["payload-0.so"]["same"]) > 50
    assert cli.main([*words, str(made.new[1])]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["failed"] == ["completeness-different"]
    assert "first: " in err


def test_against_a_stripped_image_nothing_is_passed_silently(made: Made, tmp_path: Path) -> None:
    data = bytearray(made.new[0].read_bytes())
    struct.pack_into("<Q", data, 40, 0)           # no section headers, so no symbols
    struct.pack_into("<HHH", data, 58, 0, 0, 0)
    stripped = tmp_path / "stripped"
    stripped.write_bytes(data)
    verdict = verify(made.bundles[0], Given([made.image], [], [stripped]))
    assert {o.check for o in verdict.of("unchecked")} == set(
        c for c in ("completeness-missing", "completeness-different", "completeness-extra"))


COPIES = """
#include "case.h"
NOINLINE int first(char *to, const char *from) { memcpy(to, from, strlen(from) + 1); return 1; }
void answer(const char *line) { char room[80]; printf("%d %s\\n", first(room, line), room); }
"""


def _other_version(b: Broken) -> None:
    """libc has two functions memcpy; the older one is called as if the source had asked for it."""
    older = next(number for number, (version, _) in b.file.versions_needed.items() if version == "GLIBC_2.2.5")
    b.set_version("memcpy", older)


def test_an_import_of_another_version_is_another_function(tmp_path: Path, shared_folder: Path) -> None:
    case = case_of(tmp_path / "case", COPIES, COPIES.replace("return 1", "return 2"))
    made = make(case, Configuration.parse("gcc -O1 pie"), tmp_path / "build", shared_folder)
    assert is_complete(compared(made, 1, made.new[0]))
    found = compared(made, 1, made.new[0], _other_version)
    assert list(found.different) == ["first"] and "memcpy" in found.different["first"]


def _unrelocated(b: Broken) -> None:
    """A pointer that holds what it would be relocated to, were the image loaded at address 0."""
    table = next(s.value for s in b.file.symbols if s.name == "table.hr_new")
    at = b.relocation(table)
    assert at is not None
    b.set_word(table, b.file.relocation_at[table].addend)
    b.write(at + 8, bytes(8))


def test_a_pointer_that_nothing_relocates_is_none(tmp_path: Path, shared_folder: Path) -> None:
    case = case_of(tmp_path / "case", LITERALS, LITERALS.replace("{one, other}", "{other, one}"))
    made = make(case, Configuration.parse("gcc -O2 pie"), tmp_path / "build", shared_folder)
    assert is_complete(compared(made, 1, made.new[0]))
    assert "table" in compared(made, 1, made.new[0], _unrelocated).different
    broken = Broken.of(made.bundles[0])
    update = next(u for u in broken.tables.updates if u.flags == 1)
    at = broken.relocation(update.old_content)
    assert at is not None
    broken.set_word(update.old_content, broken.file.relocation_at[update.old_content].addend)
    broken.write(at, struct.pack("<Q", broken.file.relocation_at[update.old_content].offset + 0x1000))
    path = tmp_path / "broken.hotpatch"
    path.write_bytes(broken.data())
    assert "data-updates" in verify(path, Given([made.image])).failed


# ---- the comparison itself ----------------------------------------------------------------------------------------


def test_steps_come_to_what_single_instructions_come_to(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code is first compared in larger steps; the digests are those of the walk by single instructions, which takes over where
    these find a difference."""
    quick = compared(made, 1, made.new[0])
    monkeypatch.setattr(lockstep.Lockstep, "_in_steps", lambda *arguments: "")
    assert compared(made, 1, made.new[0]) == quick


def test_brief_stops_at_what_the_bundle_brings(made: Made) -> None:
    image, new = Linked(made.image.read_bytes(), "image"), [Linked(path.read_bytes(), "new") for path in made.new]
    payloads = [Payload(Broken.of(bundle).file) for bundle in made.bundles]
    assert completeness.compare(image, payloads[:1], new[0], brief=True) == completeness.compare(image, payloads[:1], new[0])
    found = completeness.compare(image, payloads[:1], new[1], brief=True)
    assert found.different and "main" not in found.same


STORES = """
#include "case.h"
static int one(int n) { return n + 1; }
int (*volatile chosen)(int) = one;
NOINLINE void choose(void) { chosen = one; }
void answer(const char *line) { choose(); printf("%d\\n", chosen((int)strlen(line))); }
"""
STORES_ANOTHER = STORES.replace("NOINLINE", "static int other(int n) { return n * 3; }\nNOINLINE").replace(
    "{ chosen = one", "{ chosen = other")
NEVER_THROWS = """
#include "case.h"
NOINLINE int risky(int n) { if (n > 100) throw n; return n; }
NOINLINE int first(int n) { return n + 1; }
void answer(const char *line) { printf("%d %d\\n", first((int)strlen(line)), risky(2)); }
"""


@pytest.mark.parametrize("configuration", ["gcc -O2 exec", "clang -O1 exec"])
@pytest.mark.parametrize("first, second, suffix", [
    pytest.param(STORES, STORES_ANOTHER, "c", id="an-instruction-with-two-addresses"),
    pytest.param(NEVER_THROWS, NEVER_THROWS.replace("first(int n) {", "first(int n) noexcept { n += risky(n);"), "cc",
                 id="what-clang-does-not-describe")])
def test_compilers_ways_are_no_differences(first: str, second: str, suffix: str, configuration: str, tmp_path: Path,
                                           shared_folder: Path) -> None:
    wanted = installed(configuration)
    made = make(case_of(tmp_path / "case", first, second, suffix=suffix), wanted, tmp_path / "build", shared_folder)
    verdict = verify(made.bundles[0], Given([made.image], [], [made.new[0]]))
    assert verdict.sound, verdict.failed


THREAD_LOCALS = """
#include "case.h"
NOINLINE int use(int *p) { return ++*p; }
NOINLINE int first(int n) { return n + 1; }
void answer(const char *line) { printf("%d\\n", first((int)strlen(line))); }
"""
THREAD_LOCALS_ADDED = THREAD_LOCALS.replace("NOINLINE int first(int n) {", """static __thread int one[8], two[8];
NOINLINE int first(int n) { n += use(one) + use(two) * 3; n += use(one + 2);""")


def _other_thread_local(b: Broken) -> None:
    """The address of `one` where that of `two` is taken, or the contrary: `lea N(%rbx), %rdi` or the like."""
    code = next(s for s in b.file.symbols if s.name == "first.hr_new")
    held = b.read(code.value, code.size)
    places = [at for at in range(code.size - 7) if held[at:at + 2] == b"\x48\x8d" and held[at + 2] >> 6 == 2]
    one, two = sorted({struct.unpack_from("<i", held, at + 3)[0] for at in places})[:2]
    at = next(at for at in places if struct.unpack_from("<i", held, at + 3)[0] == one)
    b.write(code.value + at + 3, struct.pack("<i", two))


def test_thread_locals_may_lie_elsewhere_behind_a_register(tmp_path: Path, shared_folder: Path) -> None:
    made = make(case_of(tmp_path / "case", THREAD_LOCALS, THREAD_LOCALS_ADDED), Configuration.parse("gcc -Os exec"),
                tmp_path / "build", shared_folder)
    found = compared(made, 1, made.new[0])
    assert is_complete(found), found.different
    assert "first" in compared(made, 1, made.new[0], _other_thread_local).different


def _idle_bit(b: Broken) -> None:
    """REX.B of an operand that is relative to the instruction."""
    code = next(s for s in b.file.symbols if s.name == "text.hr_new")
    held = b.read(code.value, code.size)
    b.write(code.value + next(at for at in range(code.size) if held[at:at + 2] == b"\x48\x8d"), b"\x49")


def test_idle_bits_of_prefixes_count(tmp_path: Path, shared_folder: Path) -> None:
    source = """
#include "case.h"
NOINLINE const char *text(int n) { return n > 2 ? "some text" : 0; }
void answer(const char *line) { puts(text((int)strlen(line))); }
"""
    made = make(case_of(tmp_path / "case", source, source.replace("some text", "other text")), Configuration.parse("gcc -O1 pie"),
                tmp_path / "build", shared_folder)
    assert is_complete(compared(made, 1, made.new[0]))
    assert "text" in compared(made, 1, made.new[0], _idle_bit).different


LOCKED = """
#include "case.h"
NOINLINE int first(int *to, int n) { return __atomic_add_fetch(to, n, __ATOMIC_SEQ_CST) + 1; }
void answer(const char *line) { int counted = 0; printf("%d\\n", first(&counted, (int)strlen(line))); }
"""


def _not_locked(b: Broken) -> None:
    """Another prefix of one byte, which means nothing here."""
    code = next(s for s in b.file.symbols if s.name == "first.hr_new")
    at = code.value + b.read(code.value, code.size).index(b"\xf0\x0f\xc1")      # lock xadd
    b.write(at, b"\xf2")


def test_prefixes_count(tmp_path: Path, shared_folder: Path) -> None:
    case = case_of(tmp_path / "case", LOCKED, LOCKED.replace("+ 1", "+ 2"))
    made = make(case, Configuration.parse("gcc -O2 exec"), tmp_path / "build", shared_folder)
    assert is_complete(compared(made, 1, made.new[0]))
    assert "first" in compared(made, 1, made.new[0], _not_locked).different


FAR = """
#include "case.h"
NOINLINE int first(const char *text) { return (int)strlen(text) + 1; }
void answer(const char *line) { printf("%d\\n", first(line)); }
"""


def _far_call(b: Broken) -> None:
    """`call *m` with another digit in its second byte: takes the code segment from memory as well."""
    code = next(s for s in b.file.symbols if s.name == "first.hr_new")
    b.write(code.value + b.read(code.value, code.size).index(b"\xff\x15") + 1, b"\x1d")


def test_a_far_call_is_another_call(tmp_path: Path, shared_folder: Path) -> None:
    made = make(case_of(tmp_path / "case", FAR, FAR.replace("+ 1", "+ 2")), Configuration.parse("gcc -O2 pie"),
                tmp_path / "build", shared_folder)
    assert is_complete(compared(made, 1, made.new[0]))
    assert "first" in compared(made, 1, made.new[0], _far_call).different


COUNTED = """
#include "case.h"
static __thread int counted = 5;
NOINLINE int first(int n) { counted += n; fputs("", stdout); return counted + 1; }
void answer(const char *line) { printf("%d\\n", first((int)strlen(line))); }
"""


def _into_the_reserve(b: Broken) -> None:
    """The second use of the thread-local goes to another place of the block, where new ones lie."""
    code = next(s for s in b.file.symbols if s.name == "first.hr_new")
    held = b.read(code.value, code.size)
    places = [at for at in range(code.size - 4) if -4096 <= struct.unpack_from("<i", held, at)[0] < -1024]
    b.write(code.value + places[-1], struct.pack("<i", -512))


def test_a_thread_local_of_the_image_is_not_in_the_reserve(tmp_path: Path, shared_folder: Path) -> None:
    made = make(case_of(tmp_path / "case", COUNTED, COUNTED.replace("+ 1", "+ 2")), Configuration.parse("gcc -O2 pie"),
                tmp_path / "build", shared_folder)
    assert is_complete(compared(made, 1, made.new[0]))
    assert "first" in compared(made, 1, made.new[0], _into_the_reserve).different


def test_an_offset_that_is_added_is_not_loaded() -> None:
    side = cast(Side, SimpleNamespace(tls_size=4096))

    def loaded(mnemonic: str, operands: str) -> object:
        return offset_loaded(Instruction(0, 7, mnemonic, operands, bytes(7)), side)
    assert loaded("mov", "rax, -0x404") != loaded("add", "rax, -0x404")
    assert loaded("add", "rax, -0x404") == loaded("lea", "rax, [rax - 0x404]")
