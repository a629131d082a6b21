"""Static libraries as `ar` writes them, and damaged ones."""
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotreload_tool import archive
from hotreload_tool.errors import Damaged

CONTENTS = {"a.o": b"odd", "a-member-with-a-long-name.o": b"even", "empty.o": b""}


def make(folder: Path, options: str) -> Path:
    for name, data in CONTENTS.items():
        (folder / name).write_bytes(data)
    subprocess.run(["ar", options, "lib.a", *CONTENTS], cwd=folder, check=True, timeout=60)
    return folder / "lib.a"


@pytest.mark.parametrize("options", ["qc", "qcT"])
def test_members(tmp_path: Path, options: str) -> None:
    assert dict(archive.members(make(tmp_path, options))) == CONTENTS


def test_names_twice(tmp_path: Path) -> None:
    path = make(tmp_path, "qc")
    subprocess.run(["ar", "q", "lib.a", "a.o"], cwd=tmp_path, check=True, timeout=60)
    assert [m.name for m in archive.members(path)] == [*CONTENTS, "a.o"]


def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="not a static library"):
        list(archive.members(Path(__file__)))


@given(data=st.data())
def test_damage_is_an_error_or_other_content(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("archive")
    whole = make(folder, "qc").read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole[:data.draw(st.integers(at, len(whole)))])
    if at < len(changed):
        changed[at] = data.draw(st.integers(0, 255))
    path = folder / "changed.a"
    path.write_bytes(changed)
    try:
        found = list(archive.members(path))
    except Damaged:
        return
    assert sum(len(m.data) for m in found) <= len(whole)
