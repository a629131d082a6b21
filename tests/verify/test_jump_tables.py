"""Every entry of a table of jumps, or of distances to texts, is compared, to the last."""
from __future__ import annotations

from pathlib import Path

import pytest
from bundles import Broken, case_of, installed, make
from test_completeness import compared, is_complete

from hotreload_tool.verify import completeness, distances
from hotreload_tool.verify.instructions import targets
from hotreload_tool.verify.linked import SHF_ALLOC, SHF_EXECINSTR, Linked

SWITCH = """
#include "case.h"
NOINLINE const char *kind(int n) {
  switch (n) { case 1: return "first"; case 2: puts("b"); return "second"; case 3: puts("c"); return "third";
               case 4: return "fourth"; case 5: puts("e"); return "fifth"; case 6: puts("f"); return "sixth";
               case 7: puts("g"); return "seventh"; case 8: puts("h"); return "eighth"; default: return "none"; } }
void answer(const char *line) { puts(kind((int)strlen(line))); }
"""


def _entries(b: Broken) -> list[tuple[int, int, int]]:
    """(address, width, to where it leads in the payload) of words in constants that lead into the function: distances from the
    first, or addresses."""
    code = next(s for s in b.file.symbols if s.name == "kind.hr_new")
    inside = range(code.value, code.value + code.size)
    for constants in [s for s in b.file.sections if s.flags & SHF_ALLOC and not s.flags & SHF_EXECINSTR]:
        for start in range(constants.address + -constants.address % 4, constants.end - 3, 4):
            for width, base in ((4, start), (8, 0)):
                words = range(start, constants.end - width + 1, width)
                found = [(at, width, base + int.from_bytes(b.read(at, width), "little", signed=True)) for at in words]
                count = next((i for i, (_, _, target) in enumerate(found) if target not in inside), len(found))
                if count > 4:
                    return found[:count]
    raise AssertionError("there is no table")


@pytest.mark.parametrize("configuration", ["gcc -O2 pie", "gcc -O0 exec", "clang -O0 pie"])
def test_each_entry_of_a_table_counts(configuration: str, tmp_path: Path, shared_folder: Path) -> None:
    made = make(case_of(tmp_path / "case", SWITCH, SWITCH.replace('"none"', '"nothing"')), installed(configuration),
                tmp_path / "build", shared_folder)
    assert is_complete(compared(made, 1, made.new[0])), compared(made, 1, made.new[0]).different
    table = _entries(Broken.of(made.bundles[0]))
    for number, (at, width, target) in enumerate(table):
        other = next(t for _, _, t in table if t != target) - target

        def elsewhere(b: Broken, at: int = at, width: int = width, other: int = other) -> None:
            held = int.from_bytes(b.read(at, width), "little", signed=True)
            b.write(at, (held + other).to_bytes(width, "little", signed=True))

        assert "kind" in compared(made, 1, made.new[0], elsewhere).different, f"entry {number} of {len(table)}"

    def ends(b: Broken) -> None:
        b.write(table[-1][0], bytes(table[-1][1]))

    assert "kind" in compared(made, 1, made.new[0], ends).different


@pytest.mark.parametrize("configuration", ["gcc -O1 pie", "gcc -O1 exec"])
def test_a_table_that_was_shorter_is_another_one(configuration: str, tmp_path: Path, shared_folder: Path) -> None:
    """Where the source says that nothing else comes, code has no bound, and is the same with a case more."""
    first = SWITCH.replace('default: return "none";', "default: __builtin_unreachable();")
    made = make(case_of(tmp_path / "case", first, first.replace("case 8:", "case 8: case 9:")),
                installed(configuration), tmp_path / "build", shared_folder)
    assert is_complete(compared(made, 1, made.new[0])), compared(made, 1, made.new[0]).different
    image, new = Linked(made.image.read_bytes(), "image"), Linked(made.new[0].read_bytes(), "new")
    code = [f.read(s.value, s.size) for f in (image, new) for s in f.by_name["kind.hr_body"]]
    assert len(code[0]) == len(code[1])
    assert list(completeness.compare(image, [], new).different) == ["kind"]


WORDS = """
#include "case.h"
NOINLINE const char *word(int n) {
  switch (n) { case 0: return "zero"; case 1: return "one"; case 2: return "two"; case 3: return "three";
               case 4: return "four"; case 5: return "five"; default: return "many"; } }
void answer(const char *line) { puts(word((int)strlen(line))); }
"""


@pytest.mark.parametrize("configuration", ["clang -O2 pie", "clang -O2 shared"])
def test_a_table_of_distances_is_read_by_what_it_leads_to(configuration: str, tmp_path: Path, shared_folder: Path) -> None:
    made = make(case_of(tmp_path / "case", WORDS, WORDS.replace('"two"', '"deux"')), installed(configuration),
                tmp_path / "build", shared_folder)
    assert is_complete(compared(made, 1, made.new[0])), compared(made, 1, made.new[0]).different
    file = Broken.of(made.bundles[0]).file
    code = next(s for s in file.symbols if s.name == "word.hr_new")
    start = next(t for t in targets(file.read(code.value, code.size), code.value) if file.load_of(t) and t % 4 == 0
                 and not file.executable(t) and t in distances.tables(file, {t + 24}))
    for number in range(6):
        for other in (1, -1):
            def elsewhere(b: Broken, at: int = start + 4 * number, other: int = other) -> None:
                b.write(at, (int.from_bytes(b.read(at, 4), "little", signed=True) + other).to_bytes(4, "little", signed=True))

            assert "word" in compared(made, 1, made.new[0], elsewhere).different, f"entry {number}"
    image, new = Linked(made.image.read_bytes(), "image"), Linked(made.new[0].read_bytes(), "new")
    assert list(completeness.compare(image, [], new).different) == ["word"]
