"""Programs that gave up rights: a patch works or is refused with the reason, and the program goes on as if nothing were."""
from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import stubkind
from runtimetools import (
    NOBODY,
    REPO,
    SOURCES,
    Image,
    Payload,
    Recipe,
    Update,
    build,
    environment,
    for_all_users,
    make_payload,
    run,
    start,
    start_unprivileged,
)

from hotreload_tool import abi, confined, guard, process, together
from livetools import Program

PAGE = (REPO / "docs/confined.md").read_text()
FORKS, EXITS, START = "a thread that forks, and its child", "a thread that calls `exit()`", "the agent's thread, at its start"
PLAIN, STACKS = "the agent's thread, for `ps`, `status` and patches", "also for `quiescent` and `safepoint`"
ALONE = "in a program that keeps the shortcuts of one thread, also for `ps` and `status`"
TOGETHER = "also together with other processes"
RECALLED = "with `HOTRELOAD_SIGNAL`, the agent's thread and one that takes the signal"
GUARDED, STOPPED, CRASHED = "also with a guard", "a thread that is stopped", "a thread that crashes under a guard"
OWN = ["read", "write", "exit_group", "exit", "fstat", "brk", "restart_syscall"]     # what the program itself does
OWN_FORK = ["clone", "wait4", "set_robust_list", "gettid"]
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def listed() -> dict[str, list[str]]:
    """The table of docs/confined.md: who -> names of system calls."""
    table = PAGE.split("## System calls")[1]
    return {who.strip(): re.findall(r"`(\w+)`", calls)
            for who, calls in re.findall(r"^\| (.+?) \|((?: `\w+`)+) \|$", table, re.MULTILINE)}


def numbers() -> dict[str, int]:
    """System calls of this machine by name, from the C library's header."""
    shown = run(["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"])
    return {name: int(n) for name, n in re.findall(r"^#define __NR_(\w+) (\d+)$", shown, re.MULTILINE)}


def words(calls: list[str]) -> str:
    known = numbers()
    return " ".join(str(known[c]) for c in calls)


@pytest.fixture(scope="module")
def image(folder: Path) -> Image:
    return build(folder, "confined", [SOURCES / "confined.c"])


@pytest.fixture(scope="module")
def payload(folder: Path, image: Image) -> Payload:
    """An import, a constant, data, and a static of its own: everything that the agent has to do for one."""
    source = """
    #include <stdlib.h>
    static char large[8192];
    int value_new(void) { large[1] = 1; return 7 * atoi("1"); }
    """
    return make_payload(folder, Recipe(image, source, {"value": "value_new"},
                                       [Update("greeting", b"hello", b"howdy", abi.UpdateFlags.CONSTANT)]))


@pytest.fixture(scope="module")
def crashing(folder: Path, image: Image, payload: Payload) -> Payload:
    return make_payload(folder, Recipe(image, "int value_new(void) { return *(volatile int *)16; }", {"value": "value_new"},
                                       previous=payload))


@pytest.fixture(scope="module")
def tracer(folder: Path) -> Path:
    run(["gcc", "-O2", SOURCES / "tracer.c", "-o", folder / "tracer"])
    return folder / "tracer"


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(confined.ALLOWED, "1")


def expect_before(program: Program) -> None:
    program.ask("value", r"^value 1\d\d\n", reject="value 7")
    program.ask("data", r"^data hello\n")


def expect_after(program: Program) -> None:
    program.ask("value", r"^value 7\n", reject="value 1")
    program.ask("data", r"^data howdy\n")


def expect_works(program: Program, image: Image, payload: Payload) -> None:
    for when in ("now", "quiescent"):
        assert process.apply(program.pid, [payload.path], when=when).images[0].functions_live == 1
        expect_after(program)
        process.revert(program.pid, image.build_id.hex(), 0, when=when)
        expect_before(program)


def refused(program: Program, payload: Payload, when: str = "quiescent") -> str:
    with pytest.raises(process.AgentError) as caught:
        process.apply(program.pid, [payload.path], when=when, timeout=5)
    assert caught.value.exit_code in (1, 4)
    expect_before(program)
    return str(caught.value)


# ---- system calls ----------------------------------------------------------------------------------------------------


def test_the_page_lists_every_row() -> None:
    assert list(listed()) == [FORKS, EXITS, START, PLAIN, STACKS, ALONE, TOGETHER, GUARDED, RECALLED, STOPPED, CRASHED]
    assert not {c for calls in listed().values() for c in calls} - numbers().keys()


def test_these_calls_are_enough(image: Image, payload: Payload, crashing: Payload, trusted: None) -> None:
    """The filter ends the process at any other call, in all threads."""
    rows = listed()
    with start(image) as program:
        program.ask("value", "^value 101\n")
        allowed = [c for row in (EXITS, PLAIN, STACKS, GUARDED, STOPPED, CRASHED) for c in rows[row]] + OWN
        program.ask(f"only {words(allowed)}", r"^confined 0\n")
        expect_works(program, image, payload)
        process.apply(program.pid, [payload.path], when="quiescent")
        process.apply(program.pid, [crashing.path], when="now", guard=600)
        program.ask("safely", r"^recovered\n")
        assert (guard.read(program.pid) or {})["reverted"]
        expect_after(program)
        assert program.finish() == 0


def test_these_calls_are_enough_for_a_program_of_one_thread(image: Image, payload: Payload, trusted: None,
                                                            unprivileged: Path) -> None:
    rows = listed()
    with for_all_users(image) as copy, start_unprivileged(copy) as program:
        allowed = [c for row in (EXITS, PLAIN, STACKS, ALONE, STOPPED) for c in rows[row]] + OWN
        program.ask(f"only {words(allowed)}", r"^confined 0\n")
        process.status(program.pid)
        expect_works(program, image, payload)
        process.apply(program.pid, [payload.path])
        program.ask("spin", r"^spun\n")
        process.status(program.pid)
        assert program.finish() == 0


def test_these_calls_are_enough_for_a_child(image: Image, payload: Payload, trusted: None) -> None:
    rows = listed()
    with start(image) as program:
        allowed = [c for row in (FORKS, EXITS, START, PLAIN, STACKS, STOPPED) for c in rows[row]] + OWN + OWN_FORK
        program.ask(f"only {words(allowed)}", r"^confined 0\n")
        child = int(program.ask("fork", r"^child (\d+)\n")[1])
        while child not in [agent.pid for agent in process.find()]:
            program.ask("data", r"^data hello\n")
        assert process.apply(child, [payload.path], when="quiescent").images[0].functions_live == 1
        expect_after(program)
        assert program.finish() == 0
        assert "child ended with 0" in program.transcript


def test_these_calls_are_enough_for_several_processes(image: Image, payload: Payload, trusted: None) -> None:
    rows = listed()
    allowed = [c for row in (EXITS, PLAIN, STACKS, TOGETHER, STOPPED) for c in rows[row]] + OWN
    with start(image) as one, start(image) as other:
        for program in (one, other):
            program.ask(f"only {words(allowed)}", r"^confined 0\n")

        def ask(pid: int, ballot: int | None) -> process.ApplyResult:
            return process.apply(pid, [payload.path], when="quiescent", ballot=ballot)

        assert len(together.take({p.pid: functools.partial(ask, p.pid) for p in (one, other)}).results) == 2
        for program in (one, other):
            expect_after(program)
            assert program.finish() == 0


def test_these_calls_are_enough_to_listen_again(image: Image, payload: Payload, trusted: None) -> None:
    rows = listed()
    allowed = [c for row in (EXITS, START, PLAIN, RECALLED) for c in rows[row]] + OWN
    with start(image, HOTRELOAD_SIGNAL=str(int(signal.SIGUSR2))) as program:
        program.ask(f"only {words(allowed)}", r"^confined 0\n")
        next(agent.socket for agent in process.find() if agent.pid == program.pid).unlink()
        os.kill(program.pid, signal.SIGUSR2)
        while program.pid not in [agent.pid for agent in process.find()]:
            program.ask("data", r"^data hello\n")
        assert process.apply(program.pid, [payload.path]).images[0].functions_live == 1
        expect_after(program)
        assert program.finish() == 0


def test_without_one_of_them_the_process_would_end(image: Image, payload: Payload, trusted: None) -> None:
    """The control: the filter does end it."""
    with start(image) as program:
        program.ask("value", "^value 101\n")
        program.ask(f"only {words([*OWN, 'accept4', 'poll', 'futex', 'close'])}", r"^confined 0\n")
        with pytest.raises(process.NoAgent):
            process.apply(program.pid, [payload.path])
        assert program.wait() == -signal.SIGSYS


def expect_all_or_nothing(program: Program, payload: Payload, call: str) -> None:
    program.ask(f"without {words([call])}", r"^confined 0\n")
    try:
        process.apply(program.pid, [payload.path], when="quiescent", timeout=3)
        live = True
    except (process.AgentError, process.NoAgent):
        live = program.ask("value", r"^value (\d+)\n")[1] == "7"
    (expect_after if live else expect_before)(program)
    assert program.finish() == 0


ONE_OF_THEM = sorted({c for row, calls in listed().items() if row not in (FORKS, START, RECALLED, CRASHED) for c in calls}
                     - {"rt_sigreturn", "read", "write"})     # the program needs these


@pytest.mark.parametrize("call", ONE_OF_THEM)
def test_a_filter_that_refuses_one_of_them(image: Image, payload: Payload, trusted: None, call: str) -> None:
    """EPERM for one call: the patch is there as a whole or not at all, and the program does not notice."""
    with start(image) as program:
        expect_all_or_nothing(program, payload, call)


@pytest.mark.parametrize("call", ONE_OF_THEM)
def test_the_same_in_a_program_of_one_thread(image: Image, payload: Payload, trusted: None, unprivileged: Path,
                                             call: str) -> None:
    with for_all_users(image) as copy, start_unprivileged(copy) as program:
        expect_all_or_nothing(program, payload, call)


def test_the_page_lists_no_call_that_is_not_made(image: Image, payload: Payload, crashing: Payload, tracer: Path) -> None:
    """Traced: what the agent's thread does is what the page says."""
    rows = listed()
    names = {n: name for name, n in numbers().items()}
    with start(image) as program:
        program.ask("value", "^value 101\n")
        tasks = Path(f"/proc/{program.pid}/task").iterdir()
        agent = next(int(task.name) for task in tasks if (task / "comm").read_text() == "hotreload\n")
        with Program([tracer, str(agent)], env=environment()) as watching:
            watching.expect(r"^tracing\n")
            expect_works(program, image, payload)
            process.apply(program.pid, [payload.path], when="quiescent")
            process.apply(program.pid, [crashing.path], when="now", guard=0.2)
            guard.wait(program.pid, 0, {})
            watching.finish()
            seen = {names[int(n)] for n in re.findall(r"^(\d+)$", watching.transcript, re.MULTILINE)}
        process.status(program.pid)
    documented = {c for row in (PLAIN, STACKS, GUARDED) for c in rows[row]}
    rarely = {"fcntl", "munmap", "tgkill", "sched_yield", "rt_tgsigqueueinfo", "unlink", "get_robust_list", "process_vm_readv",
              "uname", "clock_gettime", "gettid"}
    assert seen - {"restart_syscall"} <= documented
    assert documented - rarely <= seen


# ---- filters that the tool does not know -----------------------------------------------------------------------------


def test_a_confined_process_is_not_asked(image: Image, payload: Payload) -> None:
    with start(image) as program:
        program.ask(f"only {words([*OWN, *listed()[EXITS], 'accept4'])}", r"^confined 0\n")
        for ask in (lambda: process.status(program.pid), lambda: process.apply(program.pid, [payload.path])):
            with pytest.raises(confined.Confined, match="HOTRELOAD_SECCOMP=1") as caught:
                ask()
            assert caught.value.exit_code == 1
        assert program.pid in [agent.pid for agent in process.find()]
        program.ask("value", "^value 101\n")
        assert program.finish() == 0


@pytest.mark.parametrize("kind", ["strict", "filter"])
def test_threads_that_confined_themselves_are_not_stopped(image: Image, payload: Payload, kind: str) -> None:
    with start(image) as program:
        program.ask(f"thread {kind}", r"^started\n")
        assert "is confined by seccomp on its own" in refused(program, payload)
        assert process.apply(program.pid, [payload.path], when="now").images[0].functions_live == 1
        expect_after(program)
        program.ask("end", r"^closed\n")
        assert program.finish() == 0


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_no_page_is_ever_writable_and_executable(image: Image, payload: Payload, trusted: None) -> None:
    """The kernel ends the process if somebody asks for one."""
    with start(image) as program:
        program.ask("no-write-and-execute", r"^confined 0\n")
        expect_works(program, image, payload)
        program.send("map\n")
        assert program.wait() == -signal.SIGSYS


def test_memory_deny_write_execute(image: Image, payload: Payload) -> None:
    with start(image) as program:
        if program.ask("mdwe", r"^mdwe (-?\d)\n")[1] != "0":
            pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
        program.ask("map", r"^mapped 0\n")
        expect_works(program, image, payload)
        assert program.finish() == 0


def test_no_more_memory(image: Image, payload: Payload) -> None:
    with start(image) as program:
        program.ask("value", "^value 101\n")
        program.ask("limit memory", r"^limited 0\n")
        for when in ("now", "quiescent"):
            with pytest.raises((process.AgentError, process.NoAgent)):
                process.apply(program.pid, [payload.path], when=when, timeout=3)
            program.ask("value", r"^value 10\d\n", reject="value 7")
        assert program.finish() == 0


# ---- users, roots, containers ------------------------------------------------------------------------------------------


def test_a_process_that_may_not_be_dumped(image: Image, payload: Payload) -> None:
    with start(image) as program:
        program.ask("undumpable", r"^undumpable 0\n")
        expect_works(program, image, payload)


@ROOT
@pytest.mark.parametrize("dumpable", [True, False])
def test_a_process_that_changed_its_user(image: Image, payload: Payload, dumpable: bool) -> None:
    with start(image) as program:
        program.ask(f"user {NOBODY}", r"^user 0\n")
        if not dumpable:
            program.ask("undumpable", r"^undumpable 0\n")
        expect_works(program, image, payload)


@ROOT
def test_other_users_are_refused(image: Image) -> None:
    with start(image) as program:
        child = os.fork()
        if not child:
            os.setuid(NOBODY)
            try:
                process.status(program.pid)
            except process.NoAgent as e:
                os._exit(e.exit_code)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        program.ask("value", "^value 101\n")


def expect_patched_without_proc(program: Program, payload: Payload) -> None:
    """At once only. Code that has to be copied (HOTRELOAD_STUBS=entry) can't be looked at for breakpoints, so it is not."""
    for when in ("quiescent", "now"):
        if stubkind.KIND == "entry":
            assert "it can't be told whether a breakpoint" in refused(program, payload, when=when)
        elif when == "quiescent":
            assert "the threads can't be listed" in refused(program, payload)
        else:
            assert process.apply(program.pid, [payload.path], when=when).images[0].functions_live == 1
            expect_after(program)


@ROOT
def test_another_root_directory(image: Image, payload: Payload, tmp_path: Path) -> None:
    with start(image) as program:
        program.ask(f"chroot {tmp_path}", r"^chroot 0\n")
        expect_patched_without_proc(program, payload)
        if stubkind.KIND == "plt":
            process.revert(program.pid, image.build_id.hex(), 0, when="now")
        expect_before(program)


def has_namespaces() -> bool:
    return shutil.which("unshare") is not None and subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, timeout=60).returncode == 0


NAMESPACES = pytest.mark.skipif(not has_namespaces(), reason="namespaces can't be made here")


@pytest.mark.both_kinds
@NAMESPACES
def test_no_proc(image: Image, payload: Payload) -> None:
    inside = ["unshare", "--mount", "sh", "-c", f"umount -l /proc && exec {image.path}"]
    with Program(inside, env=environment()) as program:
        program.expect(r"^ready\n")
        expect_patched_without_proc(program, payload)


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hr-"))
    yield path
    shutil.rmtree(path)


@NAMESPACES
def test_a_container(image: Image, payload: Payload, elsewhere: Path) -> None:
    """Number 1 in there, another number and another directory out here."""
    inside = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", image.path]
    with Program(inside, env={**environment(), "HOTRELOAD_RUNTIME_DIR": str(elsewhere)}) as program:
        program.expect(r"^ready\n")
        outer = next(int(p) for p in Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split())
        with pytest.raises(process.NoAgent, match="it lives in a container"):
            process.status(outer)
        code = ("import os, sys; sys.path.insert(0, sys.argv[1])\nfrom hotreload_tool import process\n"
                "print('live', process.apply(1, [sys.argv[2]], when='quiescent').images[0].functions_live)")
        enter = ["nsenter", "--target", str(outer), "--mount", "--pid", "env", f"HOTRELOAD_RUNTIME_DIR={elsewhere}",
                 sys.executable, "-c", code, str(REPO), str(payload.path)]
        assert run(enter) == "live 1\n"
        expect_after(program)


