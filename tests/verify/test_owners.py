"""Static locals of one name are told apart by who refers to them: two that a bundle exchanges in all its code are found."""
from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import pytest
from bundles import Broken, Made, case_of, make
from casetools import Configuration
from test_completeness import compared, is_complete

from hotreload_tool.verify.instructions import decode, field_of, target_of
from hotreload_tool.verify.linked import Linked

TWO = """
#include "case.h"
NOINLINE int first(int n) { static int kept; return kept += n + 1; }
NOINLINE int second(int n) { static int kept; return kept += n * 3; }
void answer(const char *line) { printf("%d %d\\n", first((int)strlen(line)), second(2)); }
"""
IN_ONE = """
#include "case.h"
NOINLINE int first(int n) {
  { static int kept; n = kept += n + 1; printf("%d", kept); }
  { static int kept; kept += n; n += kept; }
  return n; }
void answer(const char *line) { printf("%d\\n", first((int)strlen(line))); }
"""
THIRD = "NOINLINE int third(int n) { static int kept; return kept += n * 7; }\nvoid answer"


def _exchange(b: Broken, made: Made, names: tuple[str, str]) -> None:
    """In all code of a bundle the one where the other is, and the contrary."""
    image = Linked(made.image.read_bytes(), "image")
    one, two = (image.by_name[name][0].value for name in names)
    changed = 0
    for code in [s for s in b.file.symbols if s.name.endswith(".hr_new") and s.size and s.type == 2]:
        for i in decode(b.read(code.value, code.size), code.value):
            target = target_of(i)
            if target in (one, two):
                distance = target - i.at - i.size
                b.write(i.at + field_of(i, distance), struct.pack("<i", distance + (one + two - 2 * target)))
                changed += 1
    assert changed > 1


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("source, changes", [
    pytest.param(TWO, [("n + 1", "n + 2"), ("n * 3", "n * 4")], id="of-two-functions"),
    pytest.param(TWO, [("n + 1", "n + 2"), ("n * 3", "n * 4"), ("void answer", THIRD), ("second(2)", "second(third(2))")],
                 id="numbered-anew"),
    pytest.param(IN_ONE, [("n + 1", "n + 2")], id="of-one-function")])
def test_two_that_are_exchanged_in_all_code_are_found(source: str, changes: list[tuple[str, str]], level: str, tmp_path: Path,
                                                      shared_folder: Path) -> None:
    second = source
    for old, new in changes:
        second = second.replace(old, new)
    made = make(case_of(tmp_path / "case", source, second), Configuration.parse(f"gcc {level} pie"), tmp_path / "build",
                shared_folder)
    assert is_complete(compared(made, 1, made.new[0])), compared(made, 1, made.new[0]).different
    wrong = partial(_exchange, made=made, names=("kept.0~main.o", "kept.1~main.o"))
    assert "first" in compared(made, 1, made.new[0], wrong).different


INLINED = """
#include "case.h"
static inline __attribute__((always_inline)) int next(int n) { static int kept; return kept += n; }
NOINLINE int first(int n) { static int kept; return kept += next(n) + 1; }
NOINLINE int second(int n) { static int kept; return kept += n * 3; }
void answer(const char *line) { printf("%d %d\\n", first((int)strlen(line)), second(2)); }
"""


def test_a_generation_before_counts_as_what_the_process_was(tmp_path: Path, shared_folder: Path) -> None:
    """A static local that an earlier generation brought, and one whose function is inlined elsewhere, keep their owners."""
    second = TWO.replace("void answer", THIRD).replace("second(2)", "second(third(2))")
    third = second.replace("n + 1", "n + 2").replace("n * 3", "n * 4").replace("n * 7", "n * 8")
    made = make(case_of(tmp_path / "case", TWO, second, third), Configuration.parse("gcc -O2 pie"), tmp_path / "build",
                shared_folder)
    for number in (1, 2):
        found = compared(made, number, made.new[number - 1])
        assert is_complete(found), found.different
    wrong = partial(_exchange, made=made, names=("kept.0~main.o", "kept.1~main.o"))
    assert {"first", "second"} & compared(made, 2, made.new[1], wrong).different.keys()


ONLY_LENT = INLINED.replace("static int kept; return kept += next(n) + 1", "return next(n) + 1")
OF_ITS_OWN = ONLY_LENT.replace("inline __attribute__((always_inline))", "NOINLINE")


@pytest.mark.parametrize("first, second", [
    pytest.param(INLINED, INLINED.replace("next(n) + 1", "next(n) + 2"), id="beside-its-own"),
    pytest.param(ONLY_LENT, OF_ITS_OWN, id="no-longer"), pytest.param(OF_ITS_OWN, ONLY_LENT, id="now")])
def test_functions_that_are_inlined_lend_their_statics(first: str, second: str, tmp_path: Path, shared_folder: Path) -> None:
    made = make(case_of(tmp_path / "case", first, second.replace("n * 3", "n * 4")), Configuration.parse("gcc -O2 pie"),
                tmp_path / "build", shared_folder)
    found = compared(made, 1, made.new[0])
    assert is_complete(found), found.different
