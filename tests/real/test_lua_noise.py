"""A line added at the top of every file of Lua, built with its assertions: nothing changed."""
from __future__ import annotations

from pathlib import Path

import pytest
from luadriver import project
from sources import LuaSource

from hotreload_tool import instrument, noise
from hotreload_tool.baseline import Store
from hotreload_tool.plan import make_plan
from livetools import Workspace

pytestmark = pytest.mark.xdist_group("lua")


@pytest.fixture(scope="module")
def moved(source: LuaSource, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Lua linked with assertions, and after that all objects anew from sources that are one line longer."""
    work = project(source.path, tmp_path_factory.mktemp("noise") / "lua")
    work.edit("SConstruct", '"LUA_COMPAT_5_3"', '"LUA_COMPAT_5_3", "LUAI_ASSERT"')
    work.scons("-j2")
    sources = sorted((work.path / "src").glob("*.c"))
    for path in sources:
        path.write_bytes(b"\n" + path.read_bytes())
    work.scons("-j2", *(f"build/{path.stem}.o" for path in sources))
    return work


def test_a_line_at_the_top_of_every_file(moved: Workspace) -> None:
    store = Store(moved.path / ".hotreload")
    live = store.live_state(store.programs()["build/lua"][0])
    found = [(path, instrument.carried_map(path)) for path in sorted((moved.path / "build").glob("*.o"))]
    maps = {m.object: m for _, m in found if m is not None}
    paths: dict[str, Path] = {m.object: path for path, m in found if m is not None}
    before = make_plan(live, maps)
    after = make_plan(live, maps, is_noise=noise.judge(store, live, paths))
    total = sum(len(m.functions) for m in maps.values())
    print(f"{len(before.changed)} of {total} functions differ, {len(after.changed)} other than in line numbers")
    assert total > 600 and len(before.changed) > total // 4, "without assertions this shows nothing"
    assert after.empty, after.changed


def test_scons_hotpatch_finds_nothing_to_do(moved: Workspace) -> None:
    assert "nothing changed" in moved.scons("-j2", "hotpatch", "HOTPATCH_APPLY=0").text
