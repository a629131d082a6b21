"""Every function of the interpreter is replaced at once, by the same source compiled otherwise; it does as before."""
from __future__ import annotations

from collections.abc import Callable

import pytest
from luadriver import DRIVER, PRELUDE, SCRIPTS, Lua

from livetools import Program, Workspace

CopyOfBuild = Callable[[str], Workspace]
pytestmark = pytest.mark.xdist_group("lua-live")

_LAST = "system"     # this script ends the process


def start(work: Workspace) -> Lua:
    env = {**work.env, "LUA_INIT": f"@{PRELUDE}"}
    return Lua(Program([work.path / "build/lua", DRIVER], cwd=work.path, env=env))


def script_outputs(lua: Lua) -> dict[str, str]:
    """What each script prints in this process, with the driver's answer. The process ends."""
    found = {}
    for script in sorted(SCRIPTS, key=lambda path: path.stem == _LAST):
        before = len(lua.program.transcript)
        if script.stem == _LAST:
            lua.program.send(f"dofile('{script}')\n")
            code = lua.program.finish()
            found["exit code"] = str(code)
        else:
            lua.ask(f"dofile('{script}'); io.stdout:flush(); return 'end of script'")
        found[script.stem] = lua.program.transcript[before:]
    return found


@pytest.mark.parametrize("flags", ['"-O0"', '"-O1"', '"-O3"', '"-O2", "-fno-inline", "-fcf-protection=full"'],
                         ids=["O0", "O1", "O3", "O2-cet"])
def test_other_optimisation(plain: Workspace, copy_of_build: CopyOfBuild, flags: str) -> None:
    work = copy_of_build("lua")
    lua, expected = start(work), start(plain)
    with lua.program, expected.program:
        lua.expect_state()
        work.edit("SConstruct", '"-O2"', flags)
        done = work.scons("-j2", "hotpatch", "HOTPATCH_WHEN=now")
        lua.expect_state()
        assert functions_changed(work) >= 100, done
        expected.expect_state()
        expected.expect_state()
        outputs = script_outputs(lua)
        assert sum(map(len, outputs.values())) > 10_000, "scripts that print nothing show nothing"
        assert outputs == script_outputs(expected)


def functions_changed(work: Workspace) -> int:
    """How many functions the only bundle changes."""
    (bundle,) = work.path.rglob("*.hotpatch")
    answer = work.hotpatch("inspect", bundle, "--json").json()
    return sum(len(image["changed"]) for image in answer["images"])
