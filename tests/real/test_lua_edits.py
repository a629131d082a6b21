"""The edits themselves, without hot patching: each shows in a fresh process of a plain build, and did not before."""
from __future__ import annotations

import os
from pathlib import Path

import pytest
from lua.edits import CHAIN, Edit
from luadriver import make_edit, project, start
from sources import LuaSource

from livetools import Workspace, run

pytestmark = pytest.mark.xdist_group("lua")

_FLAGS = ["-std=gnu99", "-O0", "-Wall", "-Wextra", "-Werror", "-DLUA_USE_LINUX", "-DLUA_COMPAT_5_3"]


def test_the_chain_covers_the_interpreter() -> None:
    files = {name for change in CHAIN for name in change.files}
    assert len(files) >= 12
    assert len({change.name for change in CHAIN}) == len(CHAIN)
    assert all(check.old != check.new or len(change.checks) > 1 for change in CHAIN for check in change.checks)


def test_every_edit_shows_in_a_plain_build(source: LuaSource, tmp_path: Path) -> None:
    work = project(source.path, tmp_path / "lua")
    build(work, sorted((work.path / "src").glob("*.c")))
    for change in CHAIN:
        check_fresh_process(work, change, after=False)
        make_edit(work.path / "src", change)
        build(work, sources_of(work, change))
        check_fresh_process(work, change, after=True)


def check_fresh_process(work: Workspace, change: Edit, after: bool) -> None:
    lua = start(work, "src/lua", live=False)
    with lua.program:
        if after:
            lua.expect_after(change)
        else:
            lua.expect_before(change)
            for check in change.checks:
                if check.interrupt:
                    lua.interrupt(check, new=False)
        lua.expect_state()
        lua.expect_state()
        lua.end()


def sources_of(work: Workspace, change: Edit) -> list[Path]:
    directory = work.path / "src"
    if any(name.endswith(".h") for name in change.files):
        return sorted(directory.glob("*.c"))
    return [directory / name for name in change.files]


def build(work: Workspace, files: list[Path]) -> None:
    """Compile some files, quickly, and link all."""
    compiler = os.environ.get("CC", "gcc")
    directory = work.path / "src"
    run([compiler, *_FLAGS, "-c", *files], cwd=directory, code=0)
    run([compiler, "-Wl,-E", "-o", "lua", *sorted(directory.glob("*.o")), "-lm", "-ldl"], cwd=directory, code=0)
