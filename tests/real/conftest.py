"""Fixtures of the tests on the Lua interpreter: its source and its builds."""
from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from luadriver import project
from sources import LuaSource, Offline, Unavailable, lua_source

from livetools import Workspace, clean_environment, runtime_directory

CopyOfBuild = Callable[[str], Workspace]


@pytest.fixture(scope="session")
def source() -> LuaSource:
    """Lua's source; without it the tests fail, and are skipped only where HOTRELOAD_OFFLINE=1 says so."""
    try:
        return lua_source()
    except Offline as e:
        pytest.skip(str(e))
    except Unavailable as e:
        pytest.fail(str(e))


@pytest.fixture(scope="session")
def plain(source: LuaSource, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Lua built with the tool switched off. Not to be changed."""
    work = project(source.path, tmp_path_factory.mktemp("plain") / "lua")
    work.scons("-j2", "HOTRELOAD=0")
    return work


@pytest.fixture(scope="session")
def built(source: LuaSource, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Lua built with the tool. Not to be changed: tests that edit take a copy."""
    work = project(source.path, tmp_path_factory.mktemp("built") / "lua")
    work.scons("-j2")
    return work


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A runtime directory for the programs of one test."""
    with runtime_directory() as path:
        yield path


@pytest.fixture
def copy_of_build(built: Workspace, tmp_path: Path, sockets: Path) -> CopyOfBuild:
    """Copies of the instrumented build, to edit; their programs share one runtime directory."""
    def make(name: str) -> Workspace:
        shutil.copytree(built.path, tmp_path / name, symlinks=True)
        return Workspace(tmp_path / name, clean_environment(HOTRELOAD_RUNTIME_DIR=str(sockets)))
    return make
