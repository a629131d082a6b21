"""Every kind of edit, made to a running program: taken, or refused with its reason. One case is one folder.

`vN.c` (or `.cc`) is the source in version N; a case has two versions or more. `vN.UNIT.c` (`.cc`, `.S`) is another
source of the program, UNIT any word; where a version brings no new one, the unit stays as it was. Headers (`*.h`) are
there for all. Every source includes `case.h` (in `lib/`), one defines `void answer(const char *line)`: the program calls it
with each line of its input, and what it prints is the answer.

The program of version 1 is started several times. One process takes each version in turn; of the others one stays behind
at each patch, and shows that the old code, from the very same state, answers differently: so no case passes by accident.

Directives are comments in `vN.c` that begin the line, `//# NAME: value` or `//# NAME [WORDS]: value`; the second form
counts only in configurations of which all WORDS are said (`gcc -O2 pie`; `-O2|-O3` is either), and the last that counts
wins where there can be one only.

In any version:
    Stdin: LINE             sent to the program; "go" if an Expect comes first
    Expect: LINE            the answer to it, whole and exact; one directive for each line
    Symbol: REGEX           the objects define such a symbol; `No symbol: REGEX`: they don't
    Flags: WORDS            for the compiler, in all versions if the first one says them; several add up
In version 1, about the whole case:
    Only: WORDS             run in such configurations only (several: any of them); Not: WORDS in all others
    Link: WORDS             at the end of the link
    Plain: UNITS            are compiled without the tool
From version 2 on:
    Patch: ok | nothing | refuse CODE…    what must come of it; all codes of the refusals
    Reject: TEXT            in no answer of the new code, but in one of the old
    Note: TEXT              in the patch's notes, or in the refusal
    Changed: NAMES          exactly these functions get a new body; Added: NAMES come along
    Took: N, Kept: N        places of data that take a new initial value, and that keep their live one
    Init: keep | reset      instead of merge
    Without: UNITS          leave the program
    When: quiescent         instead of now
"""
from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from casetools import BadCase, Case, Configuration, all_cases, configurations, read_case, run_case

FULL = os.environ.get("HOTRELOAD_TEST_SIZE") == "full"
CONFIGURATIONS = configurations(FULL)
# What the two kinds of stubs (docs/stubs.md) could have different: in one configuration each.
BOTH_KINDS = {
    "gcc -O2 pie": {"alias", "body", "cc-comdat", "cc-exceptions", "cc-virtual", "cold-change", "function-pointer-new",
                    "gcc-part", "hardened", "ifunc", "longjmp", "recursion", "signature", "weak"},
    "clang -O2 pie": {"cc-lambda", "jump-table", "self-diff", "static-local-scopes"}}


def _runs() -> Iterator[object]:
    for folder, configuration in itertools.product(all_cases(), CONFIGURATIONS):
        case = read_case(folder)
        if case.runs_in(configuration):
            marks = [pytest.mark.both_kinds] if case.name in BOTH_KINDS.get(str(configuration), ()) else []
            yield pytest.param(case, configuration, marks=marks, id=f"{case.name}-{str(configuration).replace(' ', '')}")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where objects lie that all cases have in common."""
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize("case, configuration", list(_runs()))
def test_case(case: Case, configuration: Configuration, tmp_path: Path, shared: Path) -> None:
    run_case(case, configuration, tmp_path, shared)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_compiler_is_there(compiler: str) -> None:
    if not any(c.compiler == compiler for c in CONFIGURATIONS):
        pytest.skip(f"{compiler} or its C++ compiler is not installed: no case ran with it")


def test_each_case_runs_somewhere() -> None:
    everywhere = configurations(True)
    for folder in all_cases():
        assert any(read_case(folder).runs_in(c) for c in everywhere), f"{folder}: Only and Not leave no configuration"


# ---- the harness itself must be able to fail ---------------------------------------------------------------------

ONE = '#include "case.h"\n//# Expect: one\nvoid answer(const char *l) { (void)l; puts("one"); }\n'
TWO = '#include "case.h"\n//# Patch: ok\n//# Expect: two\nvoid answer(const char *l) { (void)l; puts("two"); }\n'


def written(folder: Path, *versions: str) -> Case:
    where = folder / "made-up"
    where.mkdir()
    for number, text in enumerate(versions, 1):
        (where / f"v{number}.c").write_text(text)
    return read_case(where)


@pytest.mark.parametrize("second, complaint", [
    (TWO, None),
    (TWO.replace("Expect: two", "Expect: three"), "expected .*three.*, got .*two"),
    (TWO.replace("ok", "nothing"), "nothing expected, but a patch was made"),
    (TWO.replace("ok", "refuse signature"), "refuse expected, but a patch was made"),
    (TWO.replace('"two"', '"one"').replace("Expect: two", "Expect: one"), "ok expected, but nothing changed"),
    (TWO.replace('"two"', '(l ? "one" : "")').replace("Expect: two", "Expect: one"), "the old code answers the same"),
    (TWO + "//# Reject: two\n", "'two' in"),
    (TWO + "//# Reject: ein\n", "the old code does not answer that either"),
    (TWO + "//# Symbol: other\n", "no symbol other"),
    (TWO + "//# No symbol: answer\n", "there is"),
    (TWO + "//# Changed: answer other\n", "Changed: "),
    (TWO + "//# Took: 1\n", "Took: 0, not 1"),
    (TWO + "//# Note: something\n", "'something' not in"),
], ids=lambda value: value if isinstance(value, str) and "\n" not in value else None)
def test_a_wrong_case_fails(second: str, complaint: str | None, tmp_path: Path, shared: Path) -> None:
    case = written(tmp_path, ONE, second)
    if complaint is None:
        return run_case(case, CONFIGURATIONS[0], tmp_path, shared)
    with pytest.raises(AssertionError, match=complaint):
        run_case(case, CONFIGURATIONS[0], tmp_path, shared)


@pytest.mark.parametrize("second", [
    TWO.replace("//# Patch: ok\n", ""), TWO.replace("//# Expect", "// Expect"), TWO + "//# Wat: 1\n", TWO + "//# Only: gcc\n",
    TWO + "  //# Reject: one\n", TWO + "//#Reject: one\n"])
def test_what_would_not_be_looked_at_is_an_error(second: str, tmp_path: Path) -> None:
    with pytest.raises(BadCase):
        written(tmp_path, ONE, second)


def test_a_case_has_two_versions(tmp_path: Path) -> None:
    with pytest.raises(BadCase):
        written(tmp_path, ONE)
