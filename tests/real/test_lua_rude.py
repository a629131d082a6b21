"""What must go wrong, goes wrong with the right exit code and a sentence, and leaves the process as it was."""
from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lua.edits import CHAIN, Edit
from luadriver import Lua, make_edit, start

from livetools import DAMAGED, DEADLINE, DONE, NO_PROCESS, REFUSED, Completed, Program, Workspace, edit

CopyOfBuild = Callable[[str], Workspace]
pytestmark = pytest.mark.xdist_group("lua-live")

BY_NAME = {change.name: change for change in CHAIN}
UPPER, CONCAT = BY_NAME["upper"], BY_NAME["concat"]


@contextmanager
def running(work: Workspace) -> Iterator[Lua]:
    lua = start(work)
    with lua.program:
        yield lua


@contextmanager
def untouched(work: Workspace, lua: Lua, *edits: Edit) -> Iterator[None]:
    """The process's generation, its behaviour before `edits` and its state are the same after the block."""
    before = work.status(lua.program)
    yield
    assert work.status(lua.program) == before
    for change in edits:
        lua.expect_before(change)
    lua.expect_state()


def make_bundle(work: Workspace, change: Edit) -> Path:
    """The bundle of one more edit, not applied."""
    before = bundles(work)
    make_edit(work.path / "src", change)
    work.scons("hotpatch", "HOTPATCH_APPLY=0")
    (made,) = bundles(work) - before
    return made


def bundles(work: Workspace) -> set[Path]:
    return set(work.path.rglob("*.hotpatch"))


def expect_sentence(done: Completed, *words: str) -> None:
    """The user is told something, in words and not as a traceback."""
    assert len(done.err.split()) >= 4, done
    assert "Traceback" not in done.text, done
    for word in words:
        assert word in done.err, done


def generation(work: Workspace, lua: Lua) -> int:
    (image,) = work.status(lua.program)["images"]
    return int(image["generation"])


# ---- bundles ---------------------------------------------------------------------------------------------------


def test_bundle_for_another_build(copy_of_build: CopyOfBuild) -> None:
    work, other = copy_of_build("lua"), copy_of_build("other")
    edit(other.path / "src/lua.c", '"interrupted!"', '"interrupted."')
    other.scons("-j2")
    bundle = make_bundle(other, UPPER)
    with running(work) as lua, untouched(work, lua, UPPER):
        expect_sentence(work.hotpatch("apply", bundle, "--pid", str(lua.pid), code=DAMAGED), "build-id")


def test_bundle_out_of_order(copy_of_build: CopyOfBuild) -> None:
    work = copy_of_build("lua")
    first, second = make_bundle(work, UPPER), make_bundle(work, CONCAT)
    with running(work) as lua:
        pid = ["--pid", str(lua.pid)]
        with untouched(work, lua, UPPER, CONCAT):
            expect_sentence(work.hotpatch("apply", second, *pid, code=DAMAGED))
        work.hotpatch("apply", first, *pid)
        lua.expect_after(UPPER)
        with untouched(work, lua, CONCAT):
            work.hotpatch("apply", first, *pid, code=DONE)      # it is there already: not an error
        work.hotpatch("apply", second, *pid)
        lua.expect_after(CONCAT)
        assert generation(work, lua) == 2
        lua.expect_state()


def test_dry_run(copy_of_build: CopyOfBuild) -> None:
    work = copy_of_build("lua")
    bundle = make_bundle(work, UPPER)
    with running(work) as lua:
        with untouched(work, lua, UPPER):
            work.hotpatch("apply", bundle, "--pid", str(lua.pid), "--dry-run")
        answer = work.hotpatch("apply", bundle, "--pid", str(lua.pid), "--json").json()
        lua.expect_after(UPPER)
    (outcome,) = answer if isinstance(answer, list) else answer.get("processes", [answer])
    assert outcome["pid"] == lua.pid and outcome["generation"] == 1
    assert outcome["functions_changed"] and outcome["functions_live"] == outcome["functions_changed"]
    assert {"build_id", "frames_in_old_code", "threads_stopped", "pause_us"} <= outcome.keys()


@pytest.mark.parametrize("harm", ["half", "nearly all", "empty", "text", "one byte", "no manifest"])
def test_damaged_bundle(copy_of_build: CopyOfBuild, tmp_path: Path, harm: str) -> None:
    work = copy_of_build("lua")
    whole = make_bundle(work, UPPER).read_bytes()
    bad = tmp_path / "bad.hotpatch"
    bad.write_bytes(damaged(whole, harm))
    with running(work) as lua, untouched(work, lua, UPPER):
        expect_sentence(work.hotpatch("apply", bad, "--pid", str(lua.pid), code=DAMAGED))
        expect_sentence(work.hotpatch("inspect", bad, code=DAMAGED))


def damaged(whole: bytes, harm: str) -> bytes:
    middle = len(whole) // 2
    return {
        "half": whole[:middle],
        "nearly all": whole[:-1],
        "empty": b"",
        "text": b"this is not a bundle\n" * 100,
        "one byte": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1:],
        "no manifest": whole.replace(b"manifest.json", b"manifesto.jso"),
    }[harm]


# ---- processes -------------------------------------------------------------------------------------------------


def test_no_such_process(copy_of_build: CopyOfBuild) -> None:
    """A process that ended, one that never was, and one without an agent."""
    work = copy_of_build("lua")
    bundle = make_bundle(work, UPPER)
    with running(work) as lua:
        lua.end()
    for pid in (lua.pid, 2 ** 22 + 1, os.getpid()):
        expect_sentence(work.hotpatch("status", str(pid), code=NO_PROCESS), str(pid))
        expect_sentence(work.hotpatch("apply", bundle, "--pid", str(pid), code=NO_PROCESS), str(pid))


def test_killed_process(copy_of_build: CopyOfBuild) -> None:
    """A process killed without a chance to tidy up: its socket stays, nobody answers, and nothing else is harmed."""
    work = copy_of_build("lua")
    make_edit(work.path / "src", UPPER)
    with running(work) as dead, running(work) as lua:
        os.kill(dead.pid, signal.SIGKILL)
        assert dead.program.wait() == -signal.SIGKILL
        expect_sentence(work.hotpatch("status", str(dead.pid), code=NO_PROCESS), str(dead.pid))
        work.scons("hotpatch")
        lua.expect_after(UPPER)
        assert [p["pid"] for p in processes(work)] == [lua.pid]


def processes(work: Workspace) -> list[dict[str, int]]:
    answer = work.hotpatch("ps", "--json").json()
    found = answer if isinstance(answer, list) else answer["processes"]
    assert isinstance(found, list)
    return found


def test_stopped_process(copy_of_build: CopyOfBuild) -> None:
    """A process that does not answer costs a bounded time, the others are patched, and it takes the patch later."""
    work = copy_of_build("lua")
    make_edit(work.path / "src", UPPER)
    with running(work) as lua, running(work) as stopped:
        os.kill(stopped.pid, signal.SIGSTOP)
        work.scons("hotpatch", code=None, timeout=120)
        lua.expect_after(UPPER)
        os.kill(stopped.pid, signal.SIGCONT)
        work.scons("hotpatch")
        stopped.expect_after(UPPER)
        assert generation(work, lua) == generation(work, stopped) == 1


def test_function_that_is_always_on_the_stack(copy_of_build: CopyOfBuild) -> None:
    """Waiting for the interpreter's loop to return has a deadline, which names it; `now` does not wait."""
    work = copy_of_build("lua")
    bundle = make_bundle(work, BY_NAME["vm-loop"])
    with running(work) as lua:
        with untouched(work, lua, BY_NAME["vm-loop"]):
            waited = work.hotpatch("apply", bundle, "--pid", str(lua.pid), "--when", "quiescent", "--timeout", "1",
                                   code=DEADLINE)
            expect_sentence(waited, "luaV_execute", str(lua.pid))
        work.hotpatch("apply", bundle, "--pid", str(lua.pid), "--when", "now")
        lua.expect_after(BY_NAME["vm-loop"])
        lua.expect_state()


# ---- builds ----------------------------------------------------------------------------------------------------


def test_two_at_once(copy_of_build: CopyOfBuild) -> None:
    work = copy_of_build("lua")
    with running(work) as lua:
        for count, change in enumerate((UPPER, CONCAT), start=1):
            lua.expect_before(change)
            make_edit(work.path / "src", change)
            with patching(work) as first, patching(work) as second:
                codes = [first.wait(), second.wait()]
            assert codes == [0, 0], first.transcript + second.transcript
            lua.expect_after(change)
            assert generation(work, lua) == count
            lua.expect_state()
        assert "nothing changed" in work.scons("hotpatch").text


def patching(work: Workspace) -> Program:
    return Program([*work.scons_command, "hotpatch"], cwd=work.path, env=work.env)


@pytest.mark.parametrize("moment", [r"^gcc .*lstrlib", r"^gcc .*ltablib", r"^hotpatch "])
def test_killed_build(copy_of_build: CopyOfBuild, moment: str) -> None:
    """`scons hotpatch` is killed when it says what it does next; the next one completes the work."""
    work = copy_of_build("lua")
    with running(work) as lua:
        make_edit(work.path / "src", UPPER)
        make_edit(work.path / "src", CONCAT)
        with patching(work) as scons:
            scons.expect(moment)
            scons.kill()
        assert generation(work, lua) in (0, 1)
        lua.expect_state()
        work.scons("hotpatch")
        lua.expect_after(UPPER)
        lua.expect_after(CONCAT)
        assert generation(work, lua) == 1
        lua.expect_state()
        make_edit(work.path / "src", BY_NAME["getenv"])
        work.scons("hotpatch")
        lua.expect_after(BY_NAME["getenv"])


def test_comment_where_assertions_name_their_lines(copy_of_build: CopyOfBuild) -> None:
    """A comment moves the line numbers that assert() compiles in: no reason to replace anything."""
    work = copy_of_build("lua")
    work.edit("SConstruct", '"LUA_USE_LINUX"', '"LUA_USE_LINUX", "LUAI_ASSERT"')
    work.scons("-j2")
    with running(work) as lua, untouched(work, lua):
        for name in ("lstrlib.c", "lvm.c"):
            path = work.path / "src" / name
            path.write_text("/* a comment,\n   of two lines */\n" + path.read_text())
        assert "nothing changed" in work.scons("hotpatch").text


def test_refusal(copy_of_build: CopyOfBuild) -> None:
    """What cannot be patched is refused with its name and a reason, and the next edit works."""
    work = copy_of_build("lua")
    header = work.path / "src/lstate.h"
    before = header.read_bytes()
    with running(work) as lua:
        with untouched(work, lua):
            edit(header, "  unsigned short nci;", "  unsigned short nci;\n  long grown;")
            refused = work.scons("hotpatch", code=None)
        assert refused.code != 0
        expect_sentence(refused, "lua_State")
        header.write_bytes(before)
        make_edit(work.path / "src", UPPER)
        work.scons("hotpatch")
        lua.expect_after(UPPER)
        lua.expect_state()


def test_exit_code_of_a_refusal(copy_of_build: CopyOfBuild) -> None:
    """A process whose memory is not as the bundle expects: here, the same generation was made twice, differently."""
    work, twin = copy_of_build("lua"), copy_of_build("twin")
    ours, theirs = make_bundle(work, UPPER), make_bundle(twin, CONCAT)
    with running(work) as lua:
        work.hotpatch("apply", ours, "--pid", str(lua.pid))
        with untouched(work, lua, CONCAT):
            done = work.hotpatch("apply", theirs, "--pid", str(lua.pid), code=None)
            assert done.code in (REFUSED, DAMAGED), done
            expect_sentence(done)
            lua.expect_after(UPPER)


def test_baseline_removed(copy_of_build: CopyOfBuild) -> None:
    """Who removes the tool's directory while a program runs gets a patch or a sentence, never a wrong patch."""
    work = copy_of_build("lua")
    with running(work) as lua:
        shutil.rmtree(work.path / ".hotreload")
        make_edit(work.path / "src", UPPER)
        done = work.scons("hotpatch", code=None)
        assert "Traceback" not in done.text, done
        if done.code == 0:
            lua.expect_after(UPPER)
        else:
            lua.expect_before(UPPER)
        lua.expect_state()
