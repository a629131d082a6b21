"""`--guard` and HOTPATCH_GUARD: a patch that crashes is taken back, and whoever sent it is told."""
from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from busy_fixtures import built, program, project  # noqa: F401

from livetools import NO_PROCESS, REFUSED, Completed, Program, Workspace

CRASHING = 'const char *greeting(void) { return "hello" + *(volatile int *)8; }'


def make(project: Workspace) -> None:  # noqa: F811
    project.edit("src/steps.c", 'const char *greeting(void) { return "hello"; }', CRASHING)


def meanwhile(project: Workspace, program: Program, command: Callable[[], Completed],  # noqa: F811
              then: Callable[[], object]) -> Completed:
    """Do `then` when the process has the patch that `command` brings and watches."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(command)
        while not running.done() and not project.status(program)["images"][0]["generation"]:
            pass
        then()
        return running.result(120)


@pytest.mark.both_kinds
def test_crash_is_taken_back_and_told(project: Workspace, program: Program) -> None:  # noqa: F811
    make(project)
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    bundle, = project.path.rglob("*.hotpatch")
    failed = meanwhile(project, program, lambda: project.hotpatch("apply", bundle, "--guard", "600", code=REFUSED),
                       lambda: program.ask("try", "^dropped it\n"))
    assert "generation 1 crashed: SIGSEGV in greeting, thread" in failed.err
    assert "generation 0 is live again; the thread went on at its recovery safepoint" in failed.err
    assert "1 live" not in failed.out
    program.ask("say", "^hello, steps 1 1")
    status = project.hotpatch("status", str(program.pid))
    assert "generation 1 crashed and generation 0 is live again: SIGSEGV" in status.out
    assert project.status(program)["guard"]["resumed"] is True


def test_the_document_says_so(project: Workspace, program: Program) -> None:  # noqa: F811
    make(project)
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    bundle, = project.path.rglob("*.hotpatch")
    document = meanwhile(project, program, lambda: project.hotpatch("apply", bundle, "--guard", "600", "--json", code=REFUSED),
                         lambda: program.ask("try", "^dropped it\n")).json()
    failure, = document["failures"]
    assert not document["outcomes"] and failure["error"] == "CRASHED"
    assert (failure["guard"]["state"], failure["guard"]["reverted"], failure["guard"]["signal"]) == ("fired", True, "SIGSEGV")


def test_scons_and_a_process_that_ends_by_it(project: Workspace, program: Program) -> None:  # noqa: F811
    make(project)
    failed = meanwhile(project, program, lambda: project.scons("hotpatch", "HOTPATCH_GUARD=600", code=2),
                       lambda: program.send("say\n"))
    assert program.wait() == -signal.SIGSEGV
    assert "generation 1 crashed: SIGSEGV in greeting" in failed.err
    assert "then the signal took its course, and the process ended" in failed.err
    told = project.hotpatch("status", str(program.pid), code=NO_PROCESS)
    assert "its last report: guard: generation 1 crashed" in told.err


def test_next_edit_after_a_crash(project: Workspace, program: Program) -> None:  # noqa: F811
    make(project)
    meanwhile(project, program, lambda: project.scons("hotpatch", "HOTPATCH_GUARD=600", code=2),
              lambda: program.ask("try", "^dropped it\n"))
    project.edit("src/steps.c", CRASHING, 'const char *greeting(void) { return "good day"; }')
    done = project.scons("hotpatch", "HOTPATCH_GUARD=0.2")
    assert "guard: no crash in new code within 200.0 ms" in done.out
    program.ask("say", "^good day, steps 1 1", reject="hello")


def test_a_patch_that_holds(project: Workspace, program: Program) -> None:  # noqa: F811
    project.edit("src/steps.c", '"hello"', '"hi"')
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    bundle, = project.path.rglob("*.hotpatch")
    done = project.hotpatch("apply", bundle, "--guard", "0.2", "--json").json()
    assert done["guard"]["state"] == "passed" and done["functions_live"] == 1
    program.ask("say", "^hi,", reject="hello")
    again = project.hotpatch("apply", bundle, "--guard", "600")      # there already: nothing to watch
    assert "there already" in again.out
    refused = project.hotpatch("apply", bundle, "--guard", "0", code=2)
    assert "not a number of seconds above 0" in refused.err


def test_the_process_ends_by_itself(project: Workspace, program: Program) -> None:  # noqa: F811
    project.edit("src/steps.c", '"hello"', '"hi"')
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    bundle, = project.path.rglob("*.hotpatch")
    failed = meanwhile(project, program, lambda: project.hotpatch("apply", bundle, "--guard", "600", code=NO_PROCESS),
                       lambda: program.finish())
    assert f"process {program.pid} ended while the patch was on probation" in failed.err
