"""Patches of a program with threads, made by the tool: what goes in, what waits, and who is named."""
from __future__ import annotations

import pytest
from busy_fixtures import built, program, project  # noqa: F401

from livetools import DEADLINE, Program, Workspace


def generations(work: Workspace, running: Program, when: str, n: int) -> int:
    """Patches `n` times under load; how often a call saw two versions."""
    for _ in range(2):
        running.ask("spin", "^begun\n")
    for version in range(2, n + 2):
        work.edit("src/steps.c", f"{{ return {version - 1}; }}", f"{{ return {version}; }}")
        text = (work.path / "src/steps.c").read_text()
        (work.path / "src/steps.c").write_text(text.replace(f"+ {version - 2};", f"+ {version - 1};")
                                               .replace(f"seen += {version - 1};", f"seen += {version};"))
        running.ask("run", "^ran\n")
        work.scons("hotpatch", f"HOTPATCH_WHEN={when}")
        running.ask("run", "^ran\n")
    running.ask("say", rf"^hello, steps {2 * n + 1} {2 * n + 1}")
    return int(running.ask("end", r"^ended, mixed (\d+)\n")[1])


def test_versions_do_not_mix(project: Workspace, program: Program) -> None:  # noqa: F811
    assert generations(project, program, "quiescent", 6) == 0


def test_a_function_in_use_is_named(project: Workspace, program: Program) -> None:  # noqa: F811
    program.ask("wait", "^begun\n")
    project.edit("src/steps.c", "one_byte(fd) + 100", "one_byte(fd) + 200")
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    made, = project.path.rglob("*.hotpatch")
    refused = project.hotpatch("apply", made, "--timeout", "1", code=DEADLINE)
    assert "(waiter) has been in waits for" in refused.err and "--when now" in refused.err
    assert "nothing was changed" in refused.err
    blocked = project.hotpatch("apply", made, "--timeout", "1", "--json", code=DEADLINE).json()["blocked"]
    assert (blocked["name"], blocked["thread"], blocked["obstacle"]) == ("waits", "waiter", "code")
    applied = project.hotpatch("apply", made, "--when", "now", "--json").json()
    assert (applied["functions_live"], applied["threads_stopped"], applied["frames_in_old_code"]) == (1, 0, None)
    program.ask("end", "^ended")


def test_it_goes_in_when_nobody_is_in_the_way(project: Workspace, program: Program) -> None:  # noqa: F811
    program.ask("wait", "^begun\n")
    project.edit("src/steps.c", '"hello"', '"good day"')
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    made, = project.path.rglob("*.hotpatch")
    applied = project.hotpatch("apply", made, "--json").json()
    assert (applied["functions_live"], applied["frames_in_old_code"]) == (1, 0)
    assert applied["threads_stopped"] + applied["threads_asleep"] == 2
    assert (applied["pause_us"] > 0) == (applied["threads_stopped"] > 0) and applied["gates_us"] > 0
    program.ask("say", "^good day, steps 1 1", reject="hello")
    program.ask("end", "^ended")


def test_the_cold_half_of_a_function_counts(project: Workspace, program: Program) -> None:  # noqa: F811
    """The thread waits in a call from unlikely.cold; the body itself is not on its stack."""
    program.ask("cold", "^begun\n")
    project.edit("src/steps.c", "return 7;", "return 8;")
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    made, = project.path.rglob("*.hotpatch")
    refused = project.hotpatch("apply", made, "--timeout", "1", code=DEADLINE)
    assert "(cold) has been in unlikely for" in refused.err
    program.ask("end", "^ended")
    project.hotpatch("apply", made)
    program.ask("say", "unlikely 8\n")


def test_scons_hotpatch_takes_when(project: Workspace, program: Program) -> None:  # noqa: F811
    project.edit("src/steps.c", '"hello"', '"hi"')
    failed = project.scons("hotpatch", "HOTPATCH_WHEN=sometime", code=2)
    assert "HOTPATCH_WHEN=sometime: use one of quiescent, now, safepoint" in failed.err
    project.scons("hotpatch", "HOTPATCH_WHEN=now")
    program.ask("say", "^hi, steps", reject="hello")


@pytest.mark.parametrize("when", ["safepoint"])
def test_a_program_without_safepoints_is_told_so(project: Workspace, program: Program, when: str) -> None:  # noqa: F811
    project.edit("src/steps.c", '"hello"', '"hi"')
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    made, = project.path.rglob("*.hotpatch")
    refused = project.hotpatch("apply", made, "--when", when, "--timeout", "1", code=DEADLINE)
    assert "did not come to a safepoint" in refused.err and "hotreload_safepoint()" in refused.err
    program.ask("say", "^hello")
