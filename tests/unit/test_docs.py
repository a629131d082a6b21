"""What the documentation promises to be shown by a test, is: the tests it names exist."""
from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
EDITS = REPO / "docs/edits.md"
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)(?:\[([\w-]+)\])?`")
_CASE = re.compile(r"`tests/cases/([\w-]+)`")


def rows() -> list[str]:
    """The rows of the tables of docs/edits.md, without headings and rules."""
    lines = [line for line in EDITS.read_text().splitlines() if line.startswith("|")]
    return [line for line, after in zip(lines, [*lines[1:], ""]) if "---" not in line and "---" not in after]


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_there_are_rows() -> None:
    assert len(rows()) > 20


@pytest.mark.parametrize("row", rows(), ids=lambda row: re.sub(r"\W+", "-", row.split("|")[1]).strip("-"))
def test_each_edit_names_a_test_that_exists(row: str) -> None:
    named, cases = _NAMED.findall(row), _CASE.findall(row)
    assert named or cases, f"docs/edits.md: this row names no test: {row}"
    understood = len(named) + len(cases) == row.split("|")[3].count("`tests/")
    assert understood, f"docs/edits.md: not all that this row names has the form of a test or a case: {row}"
    for name in cases:
        assert (REPO / "tests/cases" / name / "v2.c").exists() or (REPO / "tests/cases" / name / "v2.cc").exists(), (
            f"docs/edits.md: there is no case {name}")
    for file, function, case in named:
        assert (REPO / file).is_file(), f"docs/edits.md: there is no {file}"
        assert function in functions(REPO / file), f"docs/edits.md: {file} has no {function}"
        assert f'"{case}"' in (REPO / file).read_text() or not case, f"docs/edits.md: {file} has no case {case}"


def stub_rows() -> list[str]:
    table = (REPO / "docs/stubs.md").read_text().partition("| | `plt` | `entry` | shown by |\n|---|---|---|---|\n")[2]
    return table.partition("\n\n")[0].splitlines()


def runs_in_both_kinds(path: Path, function: str) -> bool:
    """Some tests say so of their parameters, one by one."""
    node = next(n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef) and n.name == function)
    marks = [ast.unparse(decorator) for decorator in node.decorator_list]
    return "pytest.mark.both_kinds" in marks or any("parametrize" in m and "_runs()" in m for m in marks) and (
        "marks = [pytest.mark.both_kinds]" in path.read_text())


def test_the_stubs_page_has_rows() -> None:
    assert len(stub_rows()) > 15


# Both build all of their programs with heads whatever the session's kind is.
OF_ENTRY_ALONE = ("tests/live/test_entry.py", "tests/runtime/test_faults.py")


@pytest.mark.parametrize("row", stub_rows(), ids=lambda row: re.sub(r"\W+", "-", row.split("|")[1]).strip("-"))
def test_what_holds_for_both_kinds_of_stubs_is_tested_in_both(row: str) -> None:
    named = _NAMED.findall(row)
    assert named and len(named) == row.split("|")[4].count("`tests/")
    for file, function, _ in named:
        assert function in functions(REPO / file), f"docs/stubs.md: {file} has no {function}"
        assert file in OF_ENTRY_ALONE or runs_in_both_kinds(REPO / file, function), (
            f"docs/stubs.md: {file}::{function} is not marked both_kinds")


PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (REPO / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    source = REPO / page
    for target in re.findall(r"\]\(([^)#\s]+)\)", source.read_text()):
        if "://" not in target:
            assert (source.parent / target).exists(), f"{page}: {target} does not exist"
