"""An instrumented interpreter that was never patched does what a plain one does, byte for byte."""
from __future__ import annotations

from pathlib import Path

import pytest
from luadriver import PRELUDE, SCRIPTS

from livetools import Completed, Workspace, run

pytestmark = pytest.mark.xdist_group("lua")


def test_there_are_enough_scripts() -> None:
    assert len(SCRIPTS) >= 15


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_same_output(plain: Workspace, built: Workspace, script: Path) -> None:
    expected = run_script(plain, script)
    got = run_script(built, script)
    assert expected.out.strip(), "a script that prints nothing shows nothing"
    assert (got.code, got.out, got.err) == (expected.code, expected.out, expected.err)


def test_same_answers_from_standard_input(plain: Workspace, built: Workspace) -> None:
    """lua.c's own ways in: -v, -e, -i and a script on standard input; a bad option."""
    ways = (["-v"], ["-e", "print(#arg, 6 * 7)", "-"], ["-i"], ["-W", "-e", "warn('w')"], ["-x"], ["-l", "nothing"])
    for arguments in ways:
        expected = ask(plain, arguments)
        got = ask(built, arguments)
        assert (got.code, got.out, got.err) == (expected.code, expected.out, expected.err), arguments


def run_script(work: Workspace, script: Path) -> Completed:
    env = {**work.env, "LUA_INIT": f"@{PRELUDE}"}
    return run(["./lua", script, "one", "two"], cwd=work.path / "build", env=env)


def ask(work: Workspace, arguments: list[str]) -> Completed:
    text = "= 1 + 1\nfunction f()\nreturn 'f'\nend\nprint(f())\nerror('e')\nprint('after')\n"
    return run(["./lua", *arguments], cwd=work.path / "build", env=work.env, stdin=text)
