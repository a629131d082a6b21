"""Assembly without sizes is compared up to the next symbol, in files that are not instrumented; of others changes are refused."""
from __future__ import annotations

from pathlib import Path

import pytest
from bundles import Made, make_beside
from casetools import Configuration, read_case
from test_completeness import compared, is_complete

PROGRAM = """//# Expect: x
{}
#include "case.h"
int untyped(int), typed(int), goes_on(int);
NOINLINE int first(int n) {{ return n + {}; }}
void answer(const char *line) {{ printf("%d\\n", first((int)strlen(line)) + untyped(1) + typed(2) + goes_on(3)); }}
"""
ASSEMBLY = """.text
  .globl untyped
untyped:
  leal (%rdi), %eax
  addl $10, %eax
1: ret
  .globl typed
  .type typed, @function
  .p2align 5
typed:
  leal (%rdi,%rdi), %eax
again:
  addl $11, %eax
  cmpl $20, %eax
  jl again
  ret
  .globl goes_on
goes_on:
  addl $12, %edi
last:
  leal 1(%rdi), %eax
  ret
behind:
  leal 1(%rdi), %eax
  ret
  .section .note.GNU-stack, "", @progbits
"""
LAST, BEHIND = (f"{name}:\n  leal 1(%rdi), %eax\n  ret\n" for name in ("last", "behind"))


def made_of(folder: Path, shared: Path, configuration: str, *versions: str) -> Made:
    case = folder / "case"
    case.mkdir()
    for number, text in enumerate(versions, 1):
        said = "//# Patch: ok" if number > 1 else "//# Plain: b"
        (case / f"v{number}.c").write_text(PROGRAM.format(said, min(number, 2)))
        (case / f"v{number}.b.S").write_text(text)
    return make_beside(read_case(case), Configuration.parse(configuration), folder / "build", shared)


@pytest.mark.parametrize("configuration", ["gcc -O2 pie", "gcc -O0 exec", "gcc -O2 shared"])
def test_assembly_without_sizes_is_compared(configuration: str, tmp_path: Path, shared_folder: Path) -> None:
    changes = {"untyped": ("$10", "$13"), "again": ("$11", "$13"), "last": (LAST, LAST.replace("1(", "2(")),
               "goes_on": (LAST + BEHIND, BEHIND + LAST), "typed": ("(%rdi,%rdi)", "(%rdi,%rdi,2)")}
    versions = [ASSEMBLY.replace(*change) for change in changes.values()]
    made = made_of(tmp_path, shared_folder, configuration, ASSEMBLY, ASSEMBLY, *versions)
    found = compared(made, 1, made.new[0])
    assert is_complete(found), found.different
    assert {"untyped", "typed", "again", "goes_on", "last"} <= found.same.keys()
    for name, new in zip(changes, made.new[1:]):
        found = compared(made, 1, new)
        assert list(found.different) == [name], found.different


def test_what_fills_the_room_behind_it_is_no_difference(tmp_path: Path, shared_folder: Path) -> None:
    """It ends before what the assembler puts there to align what follows; that it has another length is no change."""
    further = ASSEMBLY.replace("  .p2align 5\n", "  .p2align 6\n  .nops 3\n")
    made = made_of(tmp_path, shared_folder, "gcc -O2 pie", ASSEMBLY, ASSEMBLY, further)
    for new in made.new:
        assert is_complete(compared(made, 1, new)), compared(made, 1, new).different
