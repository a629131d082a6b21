"""Several processes of one program: forked workers and separate starts take a patch together, all of them or none."""
from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import workers

from livetools import DAMAGED, DEADLINE, NO_PROCESS, REFUSED, REPLY_SECONDS, Workspace, workspace

OLD, NEW = "hello", "good day"
WORKERS = 4


class Family:
    """A program with four forked workers, and two more starts of it."""

    def __init__(self, work: Workspace, stack: contextlib.ExitStack) -> None:
        self.work = work
        self.first = stack.enter_context(work.start(["build/workers", str(WORKERS)]))
        self.pids = [self.first.pid]
        found = {}
        for _ in range(WORKERS + 1):
            match = self.first.expect(r"^(\d+) is (\d+)\n")
            found[int(match[1])] = int(match[2])
        self.pids = [found[n] for n in range(WORKERS + 1)]
        self.others = [stack.enter_context(work.start(["build/workers"])) for _ in range(2)]
        for other in self.others:
            self.pids.append(int(other.expect(r"^0 is (\d+)\n")[1]))
        wait_for_agents(work, self.pids)

    def ask(self, number: int, command: str, pattern: str) -> re.Match[str]:
        """5 and 6 are the separate starts."""
        if number <= WORKERS:
            return self.first.ask(f"{number} {command}", rf"^{number} {pattern}\n")
        return self.others[number - WORKERS - 1].ask(f"0 {command}", rf"^0 {pattern}\n")

    def expect_all(self, said: str, but: int | None = None) -> None:
        for number in range(len(self.pids)):
            if number != but:
                self.ask(number, "say", said)

    def expect_asked(self) -> None:
        """Until the hooks of all have run: they are prepared then, and about to say so."""
        for number in range(len(self.pids)):
            while self.ask(number, "asked", r"asked (\d+)")[1] == "0":
                pass

    def generations(self, but: int | None = None) -> set[int]:
        found = generations(self.work)
        return {found[pid] for number, pid in enumerate(self.pids) if number != but}

    def words(self) -> list[str]:
        return ["--pid", *map(str, self.pids)]


def generations(work: Workspace) -> dict[int, int]:
    """By pid, of all processes that have an agent."""
    return {p["pid"]: p["images"][0]["generation"] for p in work.hotpatch("ps", "--json").json()["processes"]}


def wait_for_agents(work: Workspace, pids: list[int]) -> None:
    """A forked child has its socket a little later; each question takes longer than that."""
    for _ in range(100):
        if generations(work).keys() >= set(pids):
            return
    raise AssertionError(f"of {pids} only {generations(work)} have an agent")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workers.write(tmp_path_factory.mktemp("workers") / "source")


@pytest.fixture
def work(source: Path, request: pytest.FixtureRequest) -> Iterator[Workspace]:
    """Beside those of other tests, so that they share the cache of SCons."""
    with workspace(source, source.parent / re.sub(r"\W", "_", request.node.name)) as copy:
        copy.scons()
        yield copy


@pytest.fixture
def family(work: Workspace) -> Iterator[Family]:
    with contextlib.ExitStack() as stack:
        yield Family(work, stack)


def make_bundle(work: Workspace) -> Path:
    work.edit("src/steps.c", OLD, NEW)
    work.edit("src/steps.c", "byte + 100", "byte + 200")
    work.scons("hotpatch", "HOTPATCH_APPLY=0")
    made, = work.path.rglob("*.hotpatch")
    return made


@pytest.mark.both_kinds
def test_all_of_them(family: Family) -> None:
    """Also children that are forked after a patch, and again: they begin with what is live in their parent."""
    work = family.work
    work.edit("src/steps.c", OLD, NEW)
    work.scons("hotpatch")
    family.expect_all(NEW)
    child = int(family.first.ask("2 fork 7", r"^7 is (\d+)\n")[1])
    wait_for_agents(work, [child])
    assert generations(work)[child] == 1
    work.edit("src/steps.c", NEW, "good evening")
    done = work.scons("hotpatch")
    assert f"pid {child}): 1 function changed, 1 live, generation 2" in done.out
    family.expect_all("good evening")
    back = work.hotpatch("revert", *family.words(), str(child), "--to", "0", "--json").json()
    assert sorted(o["pid"] for o in back["outcomes"]) == sorted([*family.pids, child]) and not back["failures"]
    assert {(o["generation"], o["functions_live"]) for o in back["outcomes"]} == {(0, 1)}
    family.expect_all(OLD)


def test_scons_hotpatch_patches_all_or_none(family: Family) -> None:
    """One vetoes. Another was started after a first patch, and takes that one first."""
    work = family.work
    work.edit("src/steps.c", OLD, "good morning")
    work.scons("hotpatch")
    with work.start(["build/workers"]) as late:
        late.expect(r"^0 is \d+\n")
        family.ask(3, "veto", "veto 1")
        work.edit("src/steps.c", "good morning", NEW)
        refused = work.scons("hotpatch", code=2)
        assert f"(pid {family.pids[3]}): nothing changed in this process" in refused.err
        assert "left unchanged, since all of them are patched or none" in refused.err
        family.expect_all("good morning")
        late.ask("0 say", r"^0 good morning\n", reject=NEW)
        family.ask(3, "veto", "veto 0")
        work.scons("hotpatch")
        family.expect_all(NEW)
        late.ask("0 say", rf"^0 {NEW}\n", reject="morning")
        assert set(generations(work).values()) == {2}


@pytest.mark.parametrize(("why", "number"), [("blocked", 2), ("blocked", 5), ("veto", 0), ("stopped", 3)])
def test_one_that_cannot_keeps_the_others_as_they_were(family: Family, why: str, number: int) -> None:
    """The process that forked the others, a worker, or a separate start."""
    work, made = family.work, make_bundle(family.work)
    before = {"blocked": ("wait", "waits 0"), "veto": ("veto", "veto 1"), "stopped": ("say", OLD)}[why]
    family.ask(number, *before)
    if why == "stopped":
        os.kill(family.pids[number], signal.SIGSTOP)
    failed = work.hotpatch("apply", made, *family.words(), "--timeout", "2", "--json",
                           code=REFUSED if why == "veto" else DEADLINE)
    if why == "stopped":
        os.kill(family.pids[number], signal.SIGCONT)
    document = failed.json()
    assert not document["outcomes"] and {f["pid"] for f in document["failures"]} == set(family.pids)
    if why != "stopped":
        named = [f["pid"] for f in document["failures"] if f["error"] == "VETO" or f.get("blocked")]
        assert named == [family.pids[number]]
    assert f"(pid {family.pids[number]}): nothing changed in this process" in failed.err
    assert "left unchanged, since all of them are patched or none" in failed.err
    family.expect_all(OLD)
    assert family.generations() == {0}

    after = {"blocked": ("go", "went 0"), "veto": ("veto", "veto 0"), "stopped": ("say", OLD)}[why]
    family.ask(number, *after)
    assert len(work.hotpatch("apply", made, "--all", "--json").json()["outcomes"]) == len(family.pids)
    family.expect_all(NEW)


def test_one_that_is_dead_or_runs_something_else(family: Family) -> None:
    work, made = family.work, make_bundle(family.work)
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    refused = work.hotpatch("apply", made, *family.words(), str(gone.pid), code=NO_PROCESS)
    assert f"there is no process {gone.pid}" in refused.err
    work.edit("src/main.c", '"%d unknown', '"%d not known')
    work.edit("src/steps.c", NEW, OLD)
    work.scons()
    with work.start(["build/workers"]) as another:
        another.expect(r"^0 is \d+\n")
        refused = work.hotpatch("apply", made, *family.words(), str(another.pid), code=DAMAGED)
        assert f"pid {another.pid} runs no image that the bundle is for" in refused.err
    family.expect_all(OLD)
    assert family.generations() == {0}
    work.hotpatch("apply", made, *family.words())
    family.expect_all(NEW)


def begin(work: Workspace, *args: str | Path) -> subprocess.Popen[str]:
    """The tool; the test kills it, or it ends by itself."""
    return subprocess.Popen([*work.hotpatch_command, *map(str, args)], cwd=work.path, env=work.env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_one_that_dies_meanwhile(family: Family) -> None:
    """It is in the way, so the others are prepared and wait for it."""
    work, made = family.work, make_bundle(family.work)
    family.ask(3, "wait", "waits 0")
    with begin(work, "apply", made, *family.words(), "--timeout", "300") as tool:
        family.expect_asked()
        os.kill(family.pids[3], signal.SIGKILL)
        _, said = tool.communicate(timeout=REPLY_SECONDS)
    assert tool.returncode == NO_PROCESS and f"process {family.pids[3]} ended" in said
    family.expect_all(OLD, but=3)
    assert family.generations(but=3) == {0}
    assert len(work.hotpatch("apply", made, "--all", "--json").json()["outcomes"]) == len(family.pids) - 1
    family.expect_all(NEW, but=3)


def test_the_tool_is_killed_while_they_wait(family: Family) -> None:
    """One thread is in the way, so all the others are prepared, and halt their threads again and again."""
    work, made = family.work, make_bundle(family.work)
    family.ask(1, "wait", "waits 0")
    with begin(work, "apply", made, *family.words(), "--timeout", "300") as tool:
        family.expect_asked()
        tool.kill()
    family.ask(1, "go", "went 0")
    family.expect_all(OLD)
    assert family.generations() == {0}
    assert len(work.hotpatch("apply", made, *family.words(), "--json").json()["outcomes"]) == len(family.pids)
    family.expect_all(NEW)
