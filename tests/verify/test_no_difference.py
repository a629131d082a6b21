"""What compilers and linkers do in their own way is no difference; what is changed right beside it is still found."""
from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import pytest
from bundles import Broken, Made, case_of, installed, make, make_beside
from casetools import CASES, Configuration, read_case
from test_completeness import compared, is_complete

from hotreload_tool.verify import Given, verify
from hotreload_tool.verify.linked import Linked
from hotreload_tool.verify.side import Side
from hotreload_tool.verify.space import Space
from hotreload_tool.verify.tables import Payload


def built(case: str, configuration: str, folder: Path, shared: Path) -> Made:
    """A case of tests/cases with its image and bundles."""
    wanted = installed(configuration)
    found = read_case(CASES / case)
    found.versions = [v for v in found.versions if v.number == 1 or (v.value("Patch", wanted) or "") == "ok"]
    return make(found, wanted, folder / "build", shared)


def written(folder: Path, suffix: str, configuration: str, shared: Path, *versions: str) -> Made:
    return make(case_of(folder / "case", *versions, suffix=suffix), installed(configuration), folder / "build", shared)


def failed(broken: Broken, made: Made, folder: Path, name: str = "broken") -> list[str]:
    path = folder / f"{name}.hotpatch"
    path.write_bytes(broken.data())
    return verify(path, Given([made.image])).failed


def code_of(b: Broken, name: str) -> tuple[int, bytes]:
    symbol = next(s for s in b.file.symbols if s.name == name and s.size)
    return symbol.value, b.read(symbol.value, symbol.size)


# ---- files --------------------------------------------------------------------------------------------------------


def test_a_payload_without_imports_has_no_dynamic_section(tmp_path: Path, shared_folder: Path) -> None:
    made = built("cc-comdat", "gcc -Og exec", tmp_path, shared_folder)
    verdict = verify(made.bundles[0], Given([made.image], [], [made.new[0]]))
    assert verdict.sound, verdict.failed
    bare = Broken.of(made.bundles[0])
    assert not bare.file.dynamic
    bare.set_header(bare.header_of("PT_DYNAMIC"), address=bare.file.entry, offset=0x3000)
    assert "canonical-form" in failed(bare, made, tmp_path)


def test_a_dynamic_section_is_not_hidden(made: Made, tmp_path: Path) -> None:
    imports = Broken.of(made.bundles[0])
    assert imports.file.dynamic
    imports.set_header(imports.header_of("PT_DYNAMIC"), address=0, offset=0, size=0, file_size=0)
    assert failed(imports, made, tmp_path) == ["payload-elf"]


def test_what_a_library_looks_up_by_name_is_what_it_was(tmp_path: Path, shared_folder: Path) -> None:
    """Of a class that other images may define too a library's table has names, and so has what a bundle says it held."""
    made = built("cc-new-virtual", "gcc -O1 shared", tmp_path, shared_folder)
    verdict = verify(made.bundles[0], Given([made.image], [], [made.new[0]]))
    assert verdict.sound, [(o.check, o.problems) for o in verdict.of("failed")]
    broken = Broken.of(made.bundles[0])
    old = next(u for u in broken.tables.updates if u.flags == 1)
    first, second = (at for offset in range(old.old_content, old.old_content + old.size, 8)
                     if (at := broken.relocation(offset)) is not None and (offset - old.old_content) in (8, 16))
    broken.write(first + 8, broken.read(second + 8, 8))          # another symbol
    assert "data-updates" in failed(broken, made, tmp_path)


# ---- content ------------------------------------------------------------------------------------------------------


def _place_of(b: Broken, content: bytes) -> int:
    """The address of bytes that the payload has once."""
    assert b.file.data.count(content) == 1
    at = b.file.data.index(content)
    load = next(s for s in b.file.loads if s.offset <= at < s.offset + s.file_size)
    return load.address + at - load.offset


@pytest.mark.parametrize("configuration", ["gcc -O2 exec", "gcc -O1 pie", "clang -O0 shared"])
def test_a_text_may_be_followed_by_one_that_data_refers_to(configuration: str, tmp_path: Path, shared_folder: Path) -> None:
    """Where the new image has zeros that align what follows, the payload has a text that only a variable points to."""
    made = built("data-new", configuration, tmp_path, shared_folder)
    assert is_complete(compared(made, 1, made.new[0])), compared(made, 1, made.new[0]).different
    texts = b"again %d %d\n\0x\0"

    def runs_on(b: Broken) -> None:
        b.write(_place_of(b, texts) + 12, b"!")

    def other(b: Broken) -> None:
        b.write(_place_of(b, texts) + 13, b"y")

    assert "answer" in compared(made, 1, made.new[0], runs_on).different
    assert compared(made, 1, made.new[0], other).different


TEXT_FIRST = """
#include "case.h"
NOINLINE int first(int n) { printf("counts %d\\n", n); return n + 1; }
const char kept[] __attribute__((aligned(16))) = "kept";
void answer(const char *line) { first((int)strlen(line)); puts(kept); }
"""


def test_a_text_may_come_before_the_first_named_constant(tmp_path: Path, shared_folder: Path) -> None:
    """In a library: what follows in the image is another constant than in the new image, and none comes before."""
    second = TEXT_FIRST.replace("n + 1", "n + 2").replace("puts(kept)", "puts(line[0] == 27 ? added : kept)")
    second = second.replace("void answer", 'const char added[] __attribute__((aligned(32))) = "added";\nvoid answer')
    made = written(tmp_path, "c", "gcc -O2 shared", shared_folder, TEXT_FIRST, second)
    found = compared(made, 1, made.new[0])
    assert is_complete(found), found.different
    image = Linked(made.image.read_bytes(), "image")
    text = image.section_of(image.by_name["kept"][0].value)
    assert text is not None
    at = text.address + image.read(text.address, text.size).index(b"counts")

    def another(b: Broken) -> None:
        start, code = code_of(b, "first.hr_body")
        places = [i for i in range(len(code) - 4) if start + i + 4 + struct.unpack_from("<i", code, i)[0] == at]
        b.write(start + places[0], struct.pack("<i", struct.unpack_from("<i", code, places[0])[0] + 1))

    assert "first" in compared(made, 1, made.new[0], another).different


ZEROS = """
#include "case.h"
NOINLINE int first(int n) { return n + puts("one"); }
NOINLINE int second(int n) { return n + puts("two"); }
void answer(const char *line) { printf("%d\\n", first((int)strlen(line)) + second(2)); }
"""


def test_what_no_slot_leads_to_is_no_place_of_a_payload(tmp_path: Path, shared_folder: Path) -> None:
    """A bundle could bring code that nobody calls, to have something begin where it likes."""
    made = written(tmp_path, "c", "gcc -O1 pie", shared_folder, ZEROS, ZEROS.replace("one", "three").replace("two", "four"))

    def places(broken: Broken) -> list[int]:
        return Side(Space(Linked(made.image.read_bytes(), "image"), [Payload(broken.file)])).payload_targets

    broken = Broken.of(made.bundles[0])
    texts = [_place_of(broken, text) for text in (b"three\0", b"four\0")]
    assert set(texts) <= set(places(broken))
    assert len(broken.tables.redirects) == 2
    kept = Linked(made.image.read_bytes(), "image").by_name["first.hr_slot"][0].value
    if broken.tables.redirects[0].slot != kept:
        texts.reverse()
    broken.set_count("redirects", 1)
    assert [text in places(broken) for text in texts] == [True, False]


# ---- code ---------------------------------------------------------------------------------------------------------


def test_a_jump_may_lead_to_the_trap_behind_the_code(tmp_path: Path, shared_folder: Path) -> None:
    """clang's -O0 has one where the source says that it is never reached."""
    made = built("cc-new-object", "clang -O0 exec", tmp_path, shared_folder)
    found = compared(made, 1, made.new[0])
    assert is_complete(found), found.different
    name = next(n for n in found.same if "17_M_construct_nodeIJRKS8_EEEvPSt13_Rb_tree_node" in n)

    def end(b: Broken) -> tuple[int, int]:
        """The place of the jump to the end, and the end."""
        start, code = code_of(b, name + ".hr_body")
        places = [at for at in range(len(code) - 4)
                  if code[at] == 0xe9 and struct.unpack_from("<i", code, at + 1)[0] == len(code) - at - 5]
        assert len(places) == 1
        return start + places[0], start + len(code)

    def no_trap(b: Broken) -> None:
        b.write(end(b)[1], b"\x90")

    def further(b: Broken) -> None:
        at, behind = end(b)
        b.write(at + 1, struct.pack("<i", behind - at - 4))

    for change in (no_trap, further):
        assert "goes to" in compared(made, 1, made.new[0], change).different[name]


# ---- functions of one name ----------------------------------------------------------------------------------------


def _other_start(b: Broken, which: int) -> None:
    """Another priority of what is initialised, in the first or second of two functions of one name."""
    found = sorted(s.value for s in b.file.symbols if s.name == "_Z41__static_initialization_and_destruction_0ii" and s.size)
    assert len(found) == 2
    at = b.file.data.index(b"\xff\xff\0\0", b.offset(found[which]))
    b.payload[at] = 0xfe


@pytest.mark.parametrize("configuration", ["gcc -O0 exec", "clang -O0 pie"])
def test_initialisers_of_several_units_have_one_name(configuration: str, tmp_path: Path, shared_folder: Path) -> None:
    made = built("cc-iostream", configuration, tmp_path, shared_folder)
    found = compared(made, 1, made.new[0])
    assert is_complete(found), found.different
    if configuration.startswith("gcc"):
        for which in (0, 1):
            assert compared(made, 1, made.new[0], partial(_other_start, which=which)).different


UNIT = """
#include "case.h"
static int counted;
static __attribute__((constructor)) void begin(void) {{ counted += {0}; }}
int counted_in_{1}(void) {{ return counted; }}
"""
COUNTS = """
#include "case.h"
int counted_in_b(void), counted_in_c(void);
NOINLINE int first(int n) {{ return n + {0}; }}
void answer(const char *line) {{ printf("%d\\n", first((int)strlen(line)) + counted_in_b() + counted_in_c()); }}
"""


@pytest.mark.parametrize("changed", ["b", "c"])
def test_functions_of_one_name_are_told_apart_by_their_files(changed: str, tmp_path: Path, shared_folder: Path) -> None:
    """Two that nothing refers to but the table of what runs at the start: the linked new image has another one in one file."""
    folder = tmp_path / "case"
    folder.mkdir()
    for version in (1, 2, 3):
        patch = "//# Patch: ok\n" if version > 1 else "//# Plain: b c\n"
        (folder / f"v{version}.c").write_text(f"//# Expect: x\n{patch}{COUNTS.format(min(version, 2))}")
        for unit in "bc":
            (folder / f"v{version}.{unit}.c").write_text(UNIT.format(7 if version == 3 and unit == changed else 5, unit))
    made = make_beside(read_case(folder), Configuration.parse("gcc -O1 pie"), tmp_path / "build", shared_folder)
    found = compared(made, 1, made.new[0])
    assert is_complete(found), found.different
    assert "begin" in compared(made, 1, made.new[1]).different


NAMED = """
#include "case.h"
const char *behind(void);
static NOINLINE void {0}(void) {{ printf("%s %s\\n", __func__, behind()); }}
void answer(const char *line) {{ (void)line; {0}(); }}
"""
BEHIND = """
static __attribute__((noinline)) const char *text(void) {{ return "{}"; }}
const char *behind(void) {{ return text(); }}
"""


def test_what_another_file_refers_to_is_no_end_of_a_constant(tmp_path: Path, shared_folder: Path) -> None:
    """A text right behind `__func__`, which has another length now; code of the text's file can't mean the end of that."""
    folder = tmp_path / "case"
    folder.mkdir()
    for version, text in (1, "a text"), (2, "a text"), (3, "b text"):
        said = "//# Patch: ok\n" if version > 1 else "//# Plain: z\n"
        name = "first" if version == 1 else "second"
        (folder / f"v{version}.c").write_text(f"//# Expect: x\n{said}{NAMED.format(name)}")
        (folder / f"v{version}.z.c").write_text(BEHIND.format(text))
    made = make_beside(read_case(folder), Configuration.parse("gcc -O1 pie"), tmp_path / "build", shared_folder)
    for path in (made.image, made.new[0]):
        side = Side(Space(Linked(path.read_bytes(), "a program")))
        at = next(s.value for s in side.space.image.symbols if s.name == "__func__.0")
        found = side.object_at(at + len("first\0") + (path != made.image))
        assert found is not None and found.start == at and found.offset == found.symbol.size, "the text lies elsewhere"
    comparison = compared(made, 1, made.new[0])
    assert is_complete(comparison), comparison.different
    other = compared(made, 1, made.new[1])
    assert any("a constant it uses" in why for why in other.different.values()), other
