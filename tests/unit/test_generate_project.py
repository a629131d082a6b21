"""benchmarks/generate.py: the projects that builds and patches are measured with."""
from __future__ import annotations

import re
import subprocess
from pathlib import Path

import generate
import pytest
from generate import Shape

SMALL = Shape(objects=24, functions=600)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_same_arguments_give_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        generate.write(tmp_path / name, SMALL)
    found = contents(tmp_path / "one")
    assert found == contents(tmp_path / "two")
    assert len([p for p in found if p.endswith((".c", ".cc"))]) == SMALL.objects


@pytest.mark.parametrize("unit", [0, 1, SMALL.units], ids=["c", "c++", "large"])
def test_a_unit_compiles_and_has_its_share_of_functions(unit: int, tmp_path: Path) -> None:
    generate.write(tmp_path, SMALL)
    compiler = "g++" if SMALL.is_cxx(unit) else "gcc"
    subprocess.run([compiler, "-Wall", "-Werror", "-O0", "-Iinclude", "-c", SMALL.path(unit), "-o", "u.o"],
                   cwd=tmp_path, check=True)
    lines = subprocess.run(["nm", "u.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    own = re.findall(rf" [tT] (?!_ZZ|_GLOBAL)(?:\w*step_\d+\w*|\w*u{unit:05}_?\w*)\n", lines)
    assert len(own) == (SMALL.large if unit == SMALL.units else SMALL.size(unit))


def test_all_units_together_have_the_functions_asked_for() -> None:
    for shape in (SMALL, Shape(), Shape(10_000, 1_000_000)):
        assert sum(map(shape.size, range(shape.units))) + shape.large + 3 == shape.functions     # main.c has three


def test_an_edit_changes_the_value_and_nothing_else(tmp_path: Path) -> None:
    generate.write(tmp_path, SMALL)
    before = contents(tmp_path)
    for unit in (0, 1, SMALL.units):
        path = generate.edit(tmp_path, unit, 12345, SMALL)
        old, new = before[str(path.relative_to(tmp_path))].splitlines(), path.read_bytes().splitlines()
        assert [b for a, b in zip(old, new, strict=True) if a != b] == [b"    return 12345;    // the value"]
    assert sum(a != b for a, b in zip(before.values(), contents(tmp_path).values())) == 3


def test_shapes_without_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least"):
        generate.write(tmp_path, Shape(objects=100, functions=100))
