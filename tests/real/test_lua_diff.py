"""`hotpatch diff` on every object of Lua: nothing where nothing changed. Edits: see test_lua_chain.py."""
from __future__ import annotations

import concurrent.futures
from pathlib import Path
from typing import Any

import pytest
from luadriver import project
from sources import LuaSource

from livetools import Workspace

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
