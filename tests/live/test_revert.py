"""`hotpatch revert`: back to an earlier generation, and what comes after it."""
from __future__ import annotations

from pathlib import Path

import pytest
from busy_fixtures import built, program, project  # noqa: F401

from livetools import NO_PROCESS, USAGE, Program, Workspace, workspace


def make_two(project: Workspace) -> None:  # noqa: F811
    """Generation 1: a greeting. Generation 2: another one, a variable's initialiser, and what version() gives."""
    project.edit("src/steps.c", '"hello"', '"good day"')
    project.scons("hotpatch")
    project.edit("src/steps.c", '"good day"', '"good evening"')
    project.edit("src/steps.c", "tuned = 10", "tuned = 20")
    project.edit("src/steps.c", "{ return 1; }", "{ return 2; }")
    project.scons("hotpatch")


def test_one_step_back_is_the_default(project: Workspace, program: Program) -> None:  # noqa: F811
    make_two(project)
    program.ask("say", "^good evening, steps 2 2, tuned 20")
    done = project.hotpatch("revert", "--pid", str(program.pid))
    assert "back from generation 2 to 1" in done.out
    program.ask("say", "^good day, steps 1 1, tuned 10", reject="evening|hello")
    document = project.hotpatch("revert", "--pid", str(program.pid), "--to", "0", "--json").json()
    assert (document["generation"], document["from_generation"]) == (0, 1)
    assert document["functions_live"] == document["functions_changed"] > 0
    program.ask("say", "^hello, steps 1 1, tuned 10", reject="good")
    assert project.status(program)["images"][0]["generation"] == 0


@pytest.mark.both_kinds
def test_to_a_generation(project: Workspace, program: Program) -> None:  # noqa: F811
    make_two(project)
    tried = project.hotpatch("revert", "--pid", str(program.pid), "--to", "0", "--dry-run")
    assert "nothing was changed" in tried.out
    program.ask("say", "^good evening")
    project.hotpatch("revert", "--pid", str(program.pid), "--to", "0")
    program.ask("say", "^hello, steps 1 1, tuned 10")
    again = project.hotpatch("revert", "--pid", str(program.pid), "--to", "0")
    assert "already" in again.out


def test_forward_again(project: Workspace, program: Program) -> None:  # noqa: F811
    make_two(project)
    project.hotpatch("revert", "--pid", str(program.pid), "--to", "0")
    first, second = sorted(project.path.rglob("*.hotpatch"))
    project.hotpatch("apply", first)
    program.ask("say", "^good day, steps 1 1, tuned 10")
    project.hotpatch("apply", second)
    program.ask("say", "^good evening, steps 2 2, tuned 20", reject="day|hello")


@pytest.mark.both_kinds
def test_the_next_edit_after_a_revert(project: Workspace, program: Program) -> None:  # noqa: F811
    """`scons hotpatch` brings the process to what the sources say, by way of what was reverted."""
    make_two(project)
    project.hotpatch("revert", "--pid", str(program.pid))
    project.edit("src/steps.c", '"good evening"', '"good night"')
    project.scons("hotpatch")
    program.ask("say", "^good night, steps 2 2, tuned 20", reject="evening|day")
    assert project.status(program)["images"][0]["generation"] == 3


def test_under_load(project: Workspace, program: Program) -> None:  # noqa: F811
    make_two(project)
    first, second = sorted(project.path.rglob("*.hotpatch"))
    for _ in range(2):
        program.ask("spin", "^begun\n")
    for _ in range(5):
        project.hotpatch("revert", "--pid", str(program.pid), "--to", "0")
        program.ask("run", "^ran\n")
        program.ask("say", "^hello, steps 1 1")
        project.hotpatch("apply", first)
        project.hotpatch("apply", second)
        program.ask("say", "^good evening, steps 2 2")
    program.ask("end", "^ended")


def test_usage(project: Workspace, program: Program) -> None:  # noqa: F811
    pid = str(program.pid)
    assert "nothing is patched" in project.hotpatch("revert", "--pid", pid, code=USAGE).err
    assert "before generation 3" in project.hotpatch("revert", "--pid", pid, "--to", "3", code=USAGE).err
    assert "no image other" in project.hotpatch("revert", "--pid", pid, "--image", "other", code=USAGE).err
    project.hotpatch("revert", "--pid", pid, "--to", "x", code=USAGE)
    project.hotpatch("revert", code=USAGE)
    assert program.finish() == 0
    project.hotpatch("revert", "--pid", pid, code=NO_PROCESS)


def test_to_code_that_was_unmapped(built: Path, tmp_path: Path) -> None:  # noqa: F811
    """In a small arena superseded code goes at once, and its addresses are used again; a revert brings it back."""
    small = "HOTRELOAD_ARENA=98304"
    with workspace(built, tmp_path / "small") as work:
        work.scons(small)
        with work.start(["build/busy"]) as running:
            running.expect("^ready\n")
            for n in range(1, 8):
                work.edit("src/steps.c", f"{{ return {n}; }}", f"{{ return {n + 1}; }}")
                work.scons("hotpatch", small)
                running.ask("say", rf"^hello, steps {n + 1} {n + 1}, ", reject=rf"steps {n} ")
            image = work.status(running)["images"][0]
            assert image["generation"] == 7 and image["unmapped"] >= 4
            assert image["arena"]["mapped"] == sum(p["mapped"] for p in image["payloads"]) <= 3 * (16 << 10)
            shown = work.hotpatch("status", str(running.pid)).out
            assert "generation 7: 16 KiB mapped" in shown and "superseded: nothing mapped" in shown
            for generation in (6, 2, 0):
                work.hotpatch("revert", "--pid", str(running.pid), "--to", str(generation))
                running.ask("say", rf"^hello, steps {generation + 1} {generation + 1}, ", reject=r"steps 8 ")
            work.scons("hotpatch", small)
            running.ask("say", r"^hello, steps 8 8, ", reject="steps 1 ")
