"""`hotpatch diff` on every object of Lua: nothing where nothing changed, and the right names where an edit was made."""
from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lua.edits import CHAIN
from luadriver import make_edit, project
from sources import LuaSource

from livetools import Workspace

CopyOfBuild = Callable[[str], Workspace]
pytestmark = pytest.mark.xdist_group("lua")

_KINDS = ("changed", "added", "removed", "data")


@pytest.fixture(scope="module")
def rebuilt(source: LuaSource, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A second build of the same source, in a directory whose path is another and longer."""
    work = project(source.path, tmp_path_factory.mktemp("a place with a longer name") / "rebuilt lua")
    work.scons("-j2")
    return work


def test_every_object_against_itself(built: Workspace) -> None:
    expect_no_difference([(path, path) for path in objects(built)], built)


def test_every_object_against_a_rebuild_elsewhere(built: Workspace, rebuilt: Workspace) -> None:
    expect_no_difference(list(zip(objects(built), objects(rebuilt), strict=True)), built)


def test_plain_objects(plain: Workspace) -> None:
    """Objects without object maps are compared too."""
    expect_no_difference([(path, path) for path in objects(plain)], plain)


def test_image_against_a_rebuild_elsewhere(built: Workspace, rebuilt: Workspace) -> None:
    expect_no_difference([(built.path / "build/lua", rebuilt.path / "build/lua")], built)


def test_every_edit_is_named(built: Workspace, copy_of_build: CopyOfBuild) -> None:
    """Each edit's own functions are among the changed, and few others are."""
    work = copy_of_build("lua")
    for change in CHAIN:
        before = {path.name: path.read_bytes() for path in objects(work)}
        make_edit(work.path / "src", change)
        work.scons("-j2", *(f"build/{path.name}" for path in objects(work)))
        named: set[str] = set()
        data: set[str] = set()
        for path in objects(work):
            if path.read_bytes() != before[path.name]:
                old = work.path / "before.o"
                old.write_bytes(before[path.name])
                found = difference(work, old, path)
                named |= {plain_name(name) for kind in ("changed", "added", "removed") for name in found[kind]}
                data |= {plain_name(name) for name in found["data"]}
        assert named | data, f"{change.name}: no difference found"
        assert set(change.functions) <= named, f"{change.name}: {change.functions} of {named}"
        assert len(named) <= 8 and len(data) <= 4, f"{change.name}: too much: {sorted(named)} {sorted(data)}"


def objects(work: Workspace) -> list[Path]:
    found = sorted((work.path / "build").glob("*.o"))
    assert len(found) >= 30
    return found


def difference(work: Workspace, old: Path, new: Path) -> dict[str, Any]:
    answer = work.hotpatch("diff", "--json", old, new).json()
    assert isinstance(answer, dict)
    return answer


def expect_no_difference(pairs: list[tuple[Path, Path]], work: Workspace) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for (old, new), found in zip(pairs, pool.map(lambda pair: difference(work, *pair), pairs), strict=True):
            assert {kind: found[kind] for kind in _KINDS} == dict.fromkeys(_KINDS, []), f"{old} {new}"


def plain_name(name: str) -> str:
    """The C name of a unique name: NAME~OBJECT for file-local ones."""
    return name.split("~")[0].split("#")[0]
