"""A text that is given to what reads it up to its first zero ends there; of any other it is not known."""
from __future__ import annotations

from pathlib import Path

import pytest
from bundles import Made, case_of, installed, make_beside
from casetools import CASES, Configuration, read_case
from test_completeness import compared, is_complete

SOURCE = """
#include "case.h"
#include <stdio.h>
NOINLINE int takes(const char *text) { return text[3] + (int)strlen(text); }
int (*volatile taking)(const char *) = takes;
static const char *volatile kept;
NOINLINE int shown(int n) { return puts("ab\\0cd") + n; }
NOINLINE int given(int n) { return taking("gh\\0ij") + n; }
NOINLINE int both(int n) { const char *s = "kl\\0mn"; puts(s); return taking(s) + n; }
NOINLINE int stored(int n) { const char *s = "op\\0qr"; kept = s; return puts(s) + n; }
NOINLINE int behind(int n) { return puts("st\\0uv" + 3) + n; }
NOINLINE int first(int n) { return n + 1; }
void answer(const char *line) {
  int n = (int)strlen(line); printf("%d\\n", first(n) + shown(n) + given(n) + both(n) + stored(n) + behind(n) + kept[0]); }
"""


def made_of(folder: Path, configuration: Configuration, shared: Path, *versions: str) -> Made:
    return make_beside(case_of(folder / "case", *versions), configuration, folder / "build", shared)


@pytest.mark.parametrize("configuration", ["gcc -O2 pie", "gcc -O0 exec", "gcc -O2 shared", "clang -O2 pie", "clang -O0 exec"])
def test_what_is_behind_a_zero_counts_where_it_can_be_read(configuration: str, tmp_path: Path, shared_folder: Path) -> None:
    second = SOURCE.replace("+ n; }", "+ n + 1; }")
    edits = {"given": ("ij", "ix"), "both": ("mn", "mx"), "stored": ("qr", "qx"), "behind": ("uv", "ux"), "shown": ("ab", "ax")}
    versions = [second.replace(*edit) for edit in edits.values()]
    made = made_of(tmp_path, installed(configuration), shared_folder, SOURCE, second, second.replace("cd", "cx"), *versions)
    for new in made.new[:2]:
        found = compared(made, 1, new)
        assert is_complete(found), found.different
    for name, new in zip(edits, made.new[2:]):
        assert list(compared(made, 1, new).different) == [name]


@pytest.mark.parametrize("case, configuration", [
    ("cc-static-guard", "clang -O0 exec"), ("cc-iostream", "clang -O2 pie"), ("addresses", "clang -O2 shared")])
def test_texts_may_have_other_neighbours(case: str, configuration: str, tmp_path: Path, shared_folder: Path) -> None:
    wanted = installed(configuration)
    read = read_case(CASES / case)
    read.versions = [v for v in read.versions if v.number == 1 or (v.value("Patch", wanted) or "") == "ok"][:2]
    made = make_beside(read, wanted, tmp_path / "build", shared_folder)
    found = compared(made, 1, made.new[0])
    assert is_complete(found), found.different
