"""The tool is killed at every step, and its disk is full at every write: the process is exactly before or exactly after, and
the next run works. What each step comes to stands in docs/faults.md, and is read from there."""
from __future__ import annotations

import dataclasses
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import busy
import pytest
from busy_fixtures import built, program, project  # noqa: F401

from hotreload_tool.steps import Step
from livetools import REFUSED, REPO, Completed, Program, Workspace, workspace

ROWS = {step: row for step, *row in re.findall(r"^\| `([A-Z]+)` \| (.*?) \| (.*?) \| (.*?) ?\|$",
                                               (REPO / "docs/faults.md").read_text().split("## In the tool")[1], re.MULTILINE)}
BUILD = ["IMAGE", "FACTS", "FILED", "PROGRAM"]
# Each step, with how many times it goes well before: the first request asks what runs; files are written one after the other.
KILLED = [*((step.name, 0) for step in Step if step.name not in (*BUILD, "REQUEST", "ANSWER", "ANSWERED")),
          ("REQUEST", 0), ("REQUEST", 1), ("ANSWER", 1), ("ANSWERED", 1), ("NAME", 1), ("NAME", 2)]
FULL = [step for step, row in ROWS.items() if row[2] and step not in BUILD]
KILL = -signal.SIGKILL


def faulty(work: Workspace, step: str, kind: str, skip: int = 0) -> Workspace:
    """The same, with a tool that comes to grief."""
    def through(command: list[str]) -> list[str]:
        assert command[:2] == [sys.executable, "-m"]
        return [sys.executable, str(REPO / "tests/live/faulty.py"), f"{step}:{kind}:{skip}", *command[2:]]

    return dataclasses.replace(work, scons_command=through(work.scons_command), hotpatch_command=through(work.hotpatch_command))


# ---- the table ---------------------------------------------------------------------------------------------------


def test_table_and_code_are_equal() -> None:
    assert {step: row[0] for step, row in ROWS.items()} == {step.name: step.value for step in Step}
    assert list(ROWS) == [step.name for step in Step]
    used = {name for source in (REPO / "hotreload_tool").rglob("*.py")
            for name in re.findall(r"steps\.Step\.([A-Z]+)", source.read_text())}
    assert used == set(ROWS)
    assert {step for step, _ in KILLED} | set(BUILD) == set(ROWS)


# ---- killed ------------------------------------------------------------------------------------------------------


@dataclass
class Rig:
    """One project and one process of it, for all steps: what one leaves behind must not be in the way of the next."""
    work: Workspace
    program: Program
    edits: int = 0

    def say(self, n: int, reject: int) -> None:
        """The program is at edit `n`, in all its functions."""
        self.program.ask("say", rf"^text {n}, steps {n} {n}, tuned 10", reject=rf"text {reject},")

    def edit(self) -> tuple[int, int]:
        """Numbers of the old and of the new edit."""
        old, new = self.edits, self.edits + 1
        self.work.edit("src/steps.c", f'"text {old}"', f'"text {new}"')
        self.work.edit("src/steps.c", f"{{ return {old}; }}", f"{{ return {new}; }}")
        self.edits = new
        return old, new

    def is_after(self, old: int, new: int) -> bool:
        text = int(self.program.ask("say", rf"^text ({old}|{new}), ")[1])
        self.say(text, reject=old + new - text)
        return text == new


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    source = busy.write(tmp_path_factory.mktemp("faults") / "source")
    text = (source / "src/steps.c").read_text()
    (source / "src/steps.c").write_text(text.replace('"hello"', '"text 0"').replace("{ return 1; }", "{ return 0; }"))
    with workspace(source, source.parent / "work") as work:
        work.scons()
        with work.start(["build/busy"]) as running:
            running.expect("^ready\n")
            yield Rig(work, running)


@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize("step, skip", KILLED)
def test_killed_at_a_step(rig: Rig, step: str, skip: int) -> None:
    old, new = rig.edit()
    faulty(rig.work, step, "kill", skip).scons("hotpatch", code=KILL)
    wanted = {"before": [False], "after": [True], "either": [False, True]}[ROWS[step][1]]
    assert rig.is_after(old, new) in wanted
    rig.work.scons("hotpatch")
    rig.say(new, reject=old)
    assert not list(rig.work.path.rglob("trial.json"))


def test_killed_or_full_while_an_image_is_filed(project: Workspace) -> None:  # noqa: F811
    """One edit after the other; each time the build comes to grief at the next step."""
    faults = [*((step, "kill") for step in BUILD), *((step, "full") for step in BUILD if ROWS[step][2])]
    for n, (step, kind) in enumerate(faults, 1):
        assert ROWS[step][1] == "the next build files it"
        assert ROWS[step][2] in ("refused; the next build files it", "")
        project.edit("src/steps.c", f"{{ return {n}; }}", f"{{ return {n + 1}; }}")
        failed = faulty(project, step, kind).scons(code=KILL if kind == "kill" else 2)
        if kind == "full":
            expect_reason(failed)
    project.scons()
    last = len(faults) + 1
    with project.start(["build/busy"]) as running:
        running.expect("^ready\n")
        running.ask("say", rf"^hello, steps {last} {last}")
        project.edit("src/steps.c", '"hello"', '"good day"')
        project.scons("hotpatch")
        running.ask("say", rf"^good day, steps {last} {last}", reject="hello")


def test_a_bundle_that_nobody_took_is_not_in_the_way(project: Workspace, program: Program) -> None:  # noqa: F811
    """The tool was killed before it handed out a bundle that no process can take, so that nobody took it back."""
    program.ask("wait", "^begun\n")
    project.edit("src/steps.c", "one_byte(fd) + 100", "one_byte(fd) + 200")
    faulty(project, "APPENDED", "kill").scons("hotpatch", code=KILL)
    assert len(list(project.path.rglob("*.hotpatch"))) == 1
    project.edit("src/steps.c", "one_byte(fd) + 200", "one_byte(fd) + 100")
    project.edit("src/steps.c", '"hello"', '"good day"')
    project.scons("hotpatch")
    program.ask("say", "^good day, steps 1 1", reject="hello")
    assert project.status(program)["images"][0]["generation"] == 1
    program.ask("end", "^ended")


def test_a_bundle_that_waits_for_a_process_stays(project: Workspace, program: Program) -> None:  # noqa: F811
    """Made without a process to patch, by a tool that was killed: it may be handed out all the same."""
    assert program.finish() == 0
    project.edit("src/steps.c", '"hello"', '"good day"')
    faulty(project, "APPENDED", "kill").scons("hotpatch", code=KILL)
    made, = project.path.rglob("*.hotpatch")
    project.scons("hotpatch")
    assert list(project.path.rglob("*.hotpatch")) == [made]
    with project.start(["build/busy"]) as running:
        running.expect("^ready\n")
        project.hotpatch("apply", made)
        running.ask("say", "^good day", reject="hello")


def test_the_command_line_killed_at_a_step(project: Workspace, program: Program) -> None:  # noqa: F811
    """apply, then revert, once for each step, with a store of its own that is empty each time."""
    project.edit("src/steps.c", '"hello"', '"good day"')
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    made, = project.path.rglob("*.hotpatch")
    for step, skip in (("READ", 0), ("PAYLOAD", 0), ("NAME", 0), ("REQUEST", 2), ("ANSWER", 2), ("ANSWERED", 2)):
        project.env["HOTRELOAD_DIR"] = str(project.path / step)
        faulty(project, step, "kill", skip).hotpatch("apply", made, code=KILL)
        found = program.ask("say", "^(hello|good day), steps 1 1")[1]
        assert ROWS[step][1] in ("either", {"hello": "before", "good day": "after"}[found])
        again = project.hotpatch("apply", made)
        assert ("already" in again.out) == (found == "good day")
        program.ask("say", "^good day, steps 1 1", reject="hello")
        faulty(project, "ANSWERED", "kill", 2).hotpatch("revert", "--pid", str(program.pid), code=KILL)
        program.ask("say", "^hello, steps 1 1", reject="good day")
    assert "nothing is patched" in project.hotpatch("revert", "--pid", str(program.pid), code=None).err


# ---- full --------------------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize("step", FULL)
def test_disk_full_at_a_step(rig: Rig, step: str) -> None:
    assert ROWS[step][2] == "refused, before"
    old, new = rig.edit()
    refused = faulty(rig.work, step, "full").scons("hotpatch", code=2)
    expect_reason(refused)
    rig.say(old, reject=new)
    rig.work.scons("hotpatch")
    rig.say(new, reject=old)


def expect_reason(refused: Completed) -> None:
    assert not re.search(r'File ".*/hotreload_tool/', refused.text), refused      # SCons cannot write either, and prints where
    assert re.search(r"/\S+: File too large; make room there, and run this again|could not be linked", refused.text), refused


def test_disk_full_on_the_command_line(project: Workspace, program: Program) -> None:  # noqa: F811
    """A file system of one page, where one may be made; else the limit of what a process may write."""
    project.edit("src/steps.c", '"hello"', '"good day"')
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    made, = project.path.rglob("*.hotpatch")
    small = project.path / "small"
    small.mkdir()
    project.env["HOTRELOAD_DIR"] = str(small)
    limited = faulty(project, "PAYLOAD", "full")
    if shutil.which("unshare") and not subprocess.run(["unshare", "-rm", "true"], capture_output=True, timeout=60).returncode:
        mount = 'mount -t tmpfs -o size=4k tmpfs "$0" && exec "$@"'
        limited = dataclasses.replace(project, hotpatch_command=["unshare", "-rm", "sh", "-c", mount, str(small),
                                                                 *project.hotpatch_command])
    refused = limited.hotpatch("apply", made, "--pid", str(program.pid), code=REFUSED)
    assert re.search(rf"{small}/payloads/\w+\.so: (No space left on device|File too large); make room there", refused.err)
    program.ask("say", "^hello, steps 1 1", reject="good day")
    project.hotpatch("apply", made)
    program.ask("say", "^good day, steps 1 1", reject="hello")
