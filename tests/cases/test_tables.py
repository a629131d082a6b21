"""The tables of traps and of peers' scenarios: all of them are answered, and the answers exist."""
from __future__ import annotations

import ast
import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from casetools import all_cases
from peers import PEERS
from traps import TRAPS, page

from hotreload_tool import elf, instrument

REPO = Path(__file__).resolve().parents[2]
CASE_NAMES = {folder.name for folder in all_cases()}


@functools.cache
def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def missing(name: str) -> str:
    """What is wrong with the name of a case or a test; empty if nothing."""
    if "::" not in name:
        return "" if name in CASE_NAMES else f"there is no case {name}"
    file, _, function = name.partition("::")
    if not (REPO / file).is_file():
        return f"there is no {file}"
    return "" if function in functions(REPO / file) else f"{file} has no {function}"


def answers() -> Iterator[tuple[str, tuple[str, ...], str]]:
    """(what it is, tests, reason) of every row of both tables."""
    yield from ((f"trap {number}", trap.shown, trap.why) for number, trap in TRAPS.items())
    for suite, scenarios in PEERS.items():
        yield from ((f"{suite}: {name}", peer.shown, peer.why) for name, peer in scenarios.items())


def test_every_trap_has_a_number() -> None:
    assert list(TRAPS) == list(range(1, 82))


def test_every_row_is_answered() -> None:
    assert not [row for row, tests, why in answers() if not tests and len(why) < 20]


def test_what_the_rows_name_exists() -> None:
    wrong = [f"{row}: {said}" for row, tests, _ in answers() for name in tests if (said := missing(name))]
    assert not wrong, "\n".join(wrong)


def test_a_name_that_does_not_exist_is_seen() -> None:
    assert missing("no-such-case") and missing("tests/unit/test_plan.py::test_no_such") and missing("tests/no.py::test_x")
    assert not missing("body") and not missing("tests/cases/test_tables.py::missing")


def test_every_case_is_named_somewhere() -> None:
    edits = (REPO / "docs/edits.md").read_text()
    named = {name for _, tests, _ in answers() for name in tests}
    assert not sorted(name for name in CASE_NAMES - named if f"`tests/cases/{name}`" not in edits)


def test_the_page_of_traps_is_the_table() -> None:
    assert (REPO / "docs/traps.md").read_text() == page(), "run: python tests/cases/traps.py > docs/traps.md"


def test_more_sections_than_a_half_word_counts(tmp_path: Path) -> None:
    """Trap 3. The object is the assembler's, so that only what reads it is ours."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    count = 66_000
    source = tmp_path / "many.S"
    source.write_text(f'.macro one\n.section .data.v\\@,"aw"\n.byte 1\n.endm\n.rept {count}\none\n.endr\n.text\n.globl last\n'
                      ".type last, @function\nlast: ret\n.size last, .-last\n")
    path = tmp_path / "many.o"
    subprocess.run(["gcc", "-c", source, "-o", path], check=True, timeout=120)
    described = instrument.instrument_file(path, object_name="many.o")
    assert [f.name for f in described.functions] == ["last"]
    made = elf.read(path)
    stub = next(s for s in made.symbols if s.name == "last")
    assert len(made.sections) > count and made.sections[stub.shndx].name == ".text"
