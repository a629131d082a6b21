"""Every step of the runtime fails once, and loses its client once: the process is exactly before or exactly after, and the
next apply works.

The runtime is built with -DHR_FAULTS: it does what stands in a file (runtime/faults.c). What each step does and what its
failure comes to stands in docs/faults.md, and is read from there.
"""
from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from runtimetools import (
    REPO,
    RUNTIME,
    SOURCES,
    Image,
    Payload,
    Recipe,
    Update,
    build,
    make_payload,
    maps,
    settled_maps,
    start,
)

from hotreload_tool import abi, process
from livetools import REPLY_SECONDS, Program

STEPS = {name: (phase, words) for name, phase, words in
         re.findall(r'^HR_STEP\((\w+), (\w+), "([^"]*)"\)$', (RUNTIME / "hr_steps.def").read_text(), re.MULTILINE)}
ROWS = {step: row for step, *row in re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) \| (.*?) ?\|$",
                                               (REPO / "docs/faults.md").read_text().split("## In the tool")[0], re.MULTILINE)}
CODES = {step: row[1].strip("`") for step, row in ROWS.items() if row[1].startswith("`")}
ONLY_REVERT = {"SLOTS"}
REVERT = ["TRANSACTION", "HOLD", "TARGETS", "SLOTS", "OPEN", "CLIENT", "CODES", "THREADS", "LIST", "TABLE", "HANDLER", "STACKS",
          "TABLES", "SIGNAL"]
SKIP = {"LIST": 1}     # the first time is in prepare
HALF_WAY = [("MAP", 3), ("RELOCATE", 2), ("OPEN", 1), ("OPEN", 4), ("COPY_WRITE", 1), ("UNWIND", 1), ("TARGETS", 1)]
ACCEPT4 = "288 "        # as /proc/PID/task/TID/syscall begins there: <sys/syscall.h> of x86-64
SHORT = 1.0            # seconds, where all of them pass


@dataclass(frozen=True)
class Fault:
    """The file that says what fails, and the pipes on which a step that stops is met: open all the time, so that no byte is
    lost."""
    path: Path
    reached: int
    go: int

    def set(self, step: str = "", kind: str = "fail", skip: int | None = None) -> None:
        self.path.write_text(f"{step}:{kind}:{SKIP.get(step, 0) if skip is None else skip}" if step else "")

    @contextlib.contextmanager
    def stopped(self, step: str, begin: Callable[[], None]) -> Iterator[None]:
        """`begin` makes the agent come to `step`, where it stays until the end of the block."""
        self.set(step, "stop")
        begin()
        assert select.select([self.reached], [], [], REPLY_SECONDS)[0], f"{step} was not reached"
        os.read(self.reached, 1)
        self.set()
        try:
            yield
        finally:
            os.write(self.go, b"\0")


@pytest.fixture(scope="module")
def image(folder: Path) -> Image:
    return build(folder, "faulty", [SOURCES / "target.c"], flags=["-DHEADS"], runtime_flags=("-DHR_FAULTS",))


@pytest.fixture(scope="module")
def other(folder: Path) -> Image:
    return build(folder, "libfaulty.so", [SOURCES / "library.c"], flags=["-fPIC"], runtime_flags=("-DHR_FAULTS",),
                 link=["-shared"])


@pytest.fixture(scope="module")
def payloads(folder: Path, image: Image, other: Image) -> list[Path]:
    """A program's payload with everything in it: an import, a static, an update of a constant; and a library's."""
    source = """
    #include <stdlib.h>
    extern int counter;
    static int calls;
    static char large[8192];
    int value_new(void) { large[calls & 1] = 1; return 1000 * atoi(--calls ? "1" : "0") + counter; }
    """
    update = Update("greeting", b"hello", b"howdy", abi.UpdateFlags.CONSTANT)
    first = make_payload(folder, Recipe(image, source, {"value": "value_new"}, [update]))
    second = make_payload(folder, Recipe(other, "int library_new(void) { return 77; }", {"library_value": "library_new"}))
    return [first.path, second.path]


@pytest.fixture
def fault(tmp_path: Path) -> Iterator[Fault]:
    path = tmp_path / "fault"
    for end in ("reached", "go"):
        os.mkfifo(f"{path}.{end}")
    reached, go = (os.open(f"{path}.{end}", os.O_RDWR) for end in ("reached", "go"))
    made = Fault(path, reached, go)
    made.set()
    yield made
    os.close(reached)
    os.close(go)


@pytest.fixture
def program(image: Image, other: Image, payloads: list[Path], fault: Fault) -> Iterator[Program]:
    with start(image, HR_FAULT_FILE=str(fault.path)) as running:
        running.ask(f"load {other.path}", r"^loaded\n")
        process.apply(running.pid, payloads, dry_run=True)       # libgcc_s is known to the loader now
        yield running


def expect_before(program: Program) -> None:
    program.ask("value", r"^value 1\d\d\n", reject="value 11")
    program.ask("library", r"^library 5\d\n", reject="77")
    program.ask("data", r"^data 5 5 hello 7\n", reject="howdy")


def expect_after(program: Program) -> None:
    program.ask("value", r"^value 11\d\d\n", reject=r"value 10\d\n")
    program.ask("library", r"^library 77\n", reject="library 5")
    program.ask("data", r"^data 5 5 howdy 7\n", reject="hello")


def is_after(program: Program) -> bool:
    """What the agent says; all images of the request together."""
    generations = {image.generation for image in process.status(program.pid).images}
    assert len(generations) == 1
    return generations == {1}


def expect_next_apply(program: Program, payloads: Sequence[Path]) -> None:
    result = process.apply(program.pid, payloads, when="quiescent")
    assert [i.functions_live for i in result.images] == [1, 1]
    expect_after(program)
    assert not [m for m in maps(program.pid) if "w" in m.permissions and "x" in m.permissions]
    assert program.finish() == 0


# ---- the table ---------------------------------------------------------------------------------------------------


def test_table_and_code_are_equal() -> None:
    assert list(ROWS) == list(STEPS)
    assert {step: row[0] for step, row in ROWS.items()} == {step: words for step, (_, words) in STEPS.items()}
    used = {step for source in RUNTIME.glob("*.c") for step in re.findall(r"HR_STEP_([A-Z_]+)\b", source.read_text())}
    assert used == STEPS.keys()


def test_every_step_is_injected() -> None:
    special = {"ATFORK", "THREAD", "SOCKET", "ACCEPT", "RECEIVE", "ANSWER", "CLOSE", "ARENA", "SEARCH", "SEND",
               "BALLOT"}    # tests of their own; of the last in test_together.py
    commit = {step for step, row in ROWS.items() if row[1] == "cannot fail"}
    assert CODES.keys() | special | commit == STEPS.keys()
    assert not CODES.keys() & (special | commit)
    assert {step for step, (phase, _) in STEPS.items() if phase == "COMMIT"} <= commit


def test_other_builds_have_no_faults(image: Image, target: Image) -> None:
    assert "hr_fault" in image.symbols
    assert "hr_fault" not in target.symbols


# ---- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step, skip", [*((s, None) for s in CODES if s not in ONLY_REVERT), *HALF_WAY])
def test_failing_step_leaves_no_trace(program: Program, payloads: list[Path], fault: Fault, step: str, skip: int | None) -> None:
    before, mapped = process.status(program.pid).document, settled_maps(program.pid)
    fault.set(step, skip=skip)
    for _ in range(1 if skip or CODES[step] == "DEADLINE" else 2):
        with pytest.raises(process.AgentError) as caught:
            process.apply(program.pid, payloads, when="quiescent", timeout=SHORT if step in ("LIST", "SIGNAL") else 30.0,
                          guard=60.0 if step == "GUARD" else 0.0)
        assert caught.value.code is abi.Code[CODES[step]], caught.value
        assert process.status(program.pid).document == before
        assert settled_maps(program.pid) == mapped
        expect_before(program)
    fault.set()
    expect_next_apply(program, payloads)


@pytest.mark.parametrize("step", REVERT)
def test_failing_step_of_a_revert_leaves_no_trace(program: Program, image: Image, payloads: list[Path], fault: Fault,
                                                  step: str) -> None:
    process.apply(program.pid, payloads, when="now")
    before, mapped = process.status(program.pid).document, settled_maps(program.pid)
    fault.set(step)
    with pytest.raises(process.AgentError) as caught:
        process.revert(program.pid, image.build_id.hex(), 0, timeout=SHORT if step in ("LIST", "SIGNAL") else 30.0)
    assert caught.value.code is abi.Code[CODES[step]], caught.value
    assert (process.status(program.pid).document, settled_maps(program.pid)) == (before, mapped)
    expect_after(program)
    fault.set()
    assert process.revert(program.pid, image.build_id.hex(), 0).images[0].generation == 0
    program.ask("value", r"^value 10\d\n", reject="value 11")
    program.ask("data", r"^data 5 5 hello 7\n", reject="howdy")
    expect_next_apply(program, payloads)


def test_second_image_fails_after_the_first_is_prepared(program: Program, folder: Path, image: Image, other: Image,
                                                        payloads: list[Path]) -> None:
    """The first is mapped, relocated, registered and its pages are open when the second turns out to be wrong."""
    wrong: Payload = make_payload(folder, Recipe(other, "int library_new(void) { return 78; }", {"library_value": "library_new"},
                                                 old_targets={"library_value": 16}))
    before, mapped = process.status(program.pid).document, settled_maps(program.pid)
    with pytest.raises(process.AgentError) as caught:
        process.apply(program.pid, [payloads[0], wrong.path])
    assert caught.value.code is abi.Code["UNEXPECTED_SLOT"]
    assert (process.status(program.pid).document, settled_maps(program.pid)) == (before, mapped)
    program.ask("value", r"^value 101\n", reject="1101")
    assert process.apply(program.pid, payloads).images[0].functions_live == 1


@pytest.mark.parametrize("step", ["ATFORK", "THREAD", "SOCKET"])
def test_a_program_whose_agent_cannot_start_runs_without_one(image: Image, fault: Fault, step: str) -> None:
    fault.set(step)
    with start(image, HR_FAULT_FILE=str(fault.path)) as program:
        program.ask("value", "^value 101\n")
        with pytest.raises(process.NoAgent):
            process.status(program.pid)
        assert program.pid not in [agent.pid for agent in process.find()]
        program.ask("spawn", "^spawned, status 0\n")
        assert program.finish() == 0


def wait_for_accept(pid: int) -> None:
    """Until the agent has gone back to sleep where it takes connections."""
    deadline = time.monotonic() + REPLY_SECONDS
    while not any(task.read_text().startswith(ACCEPT4) for task in Path(f"/proc/{pid}/task").glob("*/syscall")):
        assert time.monotonic() < deadline, "the agent takes no connections"


def test_connections_wait_until_they_can_be_taken(program: Program, payloads: list[Path], fault: Fault) -> None:
    wait_for_accept(program.pid)
    fault.set("ACCEPT")
    process.status(program.pid)             # the agent was waiting for this one already
    with pytest.raises(process.NoAnswer):
        process.apply(program.pid, payloads, timeout=SHORT)
    expect_before(program)
    fault.set()
    expect_next_apply(program, payloads)


@pytest.mark.parametrize("step, after", [("RECEIVE", False), ("ANSWER", False), ("SEND", True)])
def test_a_lost_answer_is_asked_for_again(program: Program, payloads: list[Path], fault: Fault, step: str, after: bool) -> None:
    fault.set(step)
    with pytest.raises(process.LostAnswer, match="not known whether") as caught:
        process.apply(program.pid, payloads, when="quiescent")
    assert caught.value.unknown
    fault.set()
    assert is_after(program) is after
    (expect_after if after else expect_before)(program)
    expect_next_apply(program, payloads)


def test_what_a_lost_answer_said_is_told_all_the_same(program: Program, image: Image, payloads: list[Path], fault: Fault) -> None:
    fault.set("ANSWER", "once")
    with pytest.raises(process.LostAnswer, match="nothing was changed") as caught:
        process.apply(program.pid, payloads, when="quiescent")
    assert not caught.value.unknown
    expect_before(program)
    fault.set("SEND", "once")
    result = process.apply(program.pid, payloads, when="quiescent")
    assert (result.dry_run, [i.functions_live for i in result.images], result.document["answer_lost"]) == (False, [1, 1], True)
    expect_after(program)
    fault.set("SEND", "once", 1)          # none before this one: the count begins with the file's new content
    process.status(program.pid)
    assert process.revert(program.pid, image.build_id.hex(), 0).images[0].generation == 0
    program.ask("data", r"^data 5 5 hello 7\n", reject="howdy")


def test_a_client_that_gave_up_does_not_say_that_nothing_changed(program: Program, payloads: list[Path], fault: Fault) -> None:
    """The agent is held up when all is live, and cannot be asked."""
    caught: list[Exception] = []

    def apply() -> None:
        try:
            process.apply(program.pid, payloads, when="quiescent", timeout=SHORT)
        except process.AgentError as e:
            caught.append(e)

    client = threading.Thread(target=apply)
    with fault.stopped("REPORT", client.start):
        client.join(REPLY_SECONDS)
    assert isinstance(caught[0], process.NoAnswer) and caught[0].unknown
    assert "nothing" not in str(caught[0])
    assert is_after(program)
    expect_after(program)
    expect_next_apply(program, payloads)


def test_pages_that_cannot_be_closed_are_closed_later(program: Program, image: Image, payloads: list[Path], fault: Fault) -> None:
    def permissions() -> list[str]:
        return [m.permissions for m in settled_maps(program.pid) if m.file == str(image.path)]

    before = permissions()
    fault.set("CLOSE")
    assert not process.apply(program.pid, payloads, when="now").document["protections_restored"]
    assert permissions() != before
    expect_after(program)
    process.status(program.pid)
    assert permissions() != before
    fault.set()
    assert is_after(program)
    assert permissions() == before


def test_pages_stay_open_after_a_refusal_only_until_the_next_request(program: Program, image: Image, payloads: list[Path],
                                                                    fault: Fault) -> None:
    before = [m for m in settled_maps(program.pid) if m.file == str(image.path)]
    fault.path.write_text("CLIENT:fail:0 CLOSE:fail:0")
    with pytest.raises(process.AgentError):
        process.apply(program.pid, payloads)
    fault.set()
    expect_before(program)
    assert not is_after(program)
    assert [m for m in settled_maps(program.pid) if m.file == str(image.path)] == before
    expect_next_apply(program, payloads)


def test_a_refused_payload_that_stays_mapped_is_in_nobodys_way(program: Program, payloads: list[Path], fault: Fault) -> None:
    before = process.status(program.pid).document
    fault.path.write_text("OPEN:fail:0 ARENA:fail:0")
    with pytest.raises(process.AgentError):
        process.apply(program.pid, payloads)
    fault.set()
    assert process.status(program.pid).document == before
    expect_before(program)
    expect_next_apply(program, payloads)


def test_code_stays_where_the_memory_cannot_be_searched(image: Image, fault: Fault, folder: Path) -> None:
    chain: list[Payload] = []
    for n in (1, 2, 3):
        chain.append(make_payload(folder, Recipe(image, f"int value_new(void) {{ return {n}; }}", {"value": "value_new"},
                                                 previous=chain[-1] if chain else None, base=image.arena if n == 3 else None,
                                                 transient=True)))
    with start(image, HR_FAULT_FILE=str(fault.path)) as program:
        for payload in chain[:2]:
            process.apply(program.pid, [payload.path], when="quiescent")
        fault.set("SEARCH")
        with pytest.raises(process.AgentError) as caught:
            process.apply(program.pid, [chain[2].path], when="quiescent", timeout=SHORT)
        assert caught.value.code is abi.Code["DEADLINE"] and "older code" in caught.value.detail
        program.ask("value", r"^value 2\n")
        assert [p.generation for p in process.status(program.pid).images[0].payloads] == [2, 1]
        fault.set()
        process.apply(program.pid, [chain[2].path], when="quiescent")
        program.ask("value", r"^value 3\n", reject="value [12]")
        assert [p.generation for p in process.status(program.pid).images[0].payloads] == [3, 2]


def test_signals_that_cannot_be_queued(program: Program, payloads: list[Path]) -> None:
    """Not injected: the limit of pending signals is 0."""
    soft, hard = resource.prlimit(program.pid, resource.RLIMIT_SIGPENDING)
    resource.prlimit(program.pid, resource.RLIMIT_SIGPENDING, (0, hard))
    with pytest.raises(process.AgentError, match=r"ulimit -i") as caught:
        process.apply(program.pid, payloads, when="quiescent", timeout=SHORT)
    assert caught.value.code is abi.Code["DEADLINE"]
    expect_before(program)
    resource.prlimit(program.pid, resource.RLIMIT_SIGPENDING, (soft, hard))
    expect_next_apply(program, payloads)


def test_no_address_space_is_left(program: Program, payloads: list[Path]) -> None:
    """Not injected: no memory can be mapped."""
    soft, hard = resource.prlimit(program.pid, resource.RLIMIT_AS)
    resource.prlimit(program.pid, resource.RLIMIT_AS, (4096, hard))
    with pytest.raises(process.AgentError) as caught:
        process.apply(program.pid, payloads, when="quiescent")
    assert isinstance(caught.value, process.LostAnswer) or caught.value.code is abi.Code["NO_MEMORY"]
    expect_before(program)
    resource.prlimit(program.pid, resource.RLIMIT_AS, (soft, hard))
    assert not is_after(program)
    expect_next_apply(program, payloads)


def test_no_descriptor_is_left(program: Program, payloads: list[Path]) -> None:
    """Not injected: nothing can be opened or accepted. The request waits, and is withdrawn when its client gives up."""
    soft, hard = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (0, hard))
    with pytest.raises(process.AgentError) as caught:
        process.apply(program.pid, payloads, when="quiescent", timeout=SHORT)
    assert caught.value.code in (abi.Code["DEADLINE"], abi.Code["BAD_REQUEST"]), caught.value
    expect_before(program)
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert not is_after(program)
    expect_next_apply(program, payloads)


def test_a_child_whose_agent_cannot_start_runs_without_one(program: Program, payloads: list[Path], fault: Fault) -> None:
    fault.set("THREAD")
    child = int(program.ask("fork", r"^child (\d+)\n")[1])
    program.ask("value", "^value 101\n")
    with pytest.raises(process.NoAgent):
        process.status(child)
    fault.set()
    program.send("exit\n")
    program.expect("child ended with 768\n")
    expect_next_apply(program, payloads)


# ---- the client goes away ----------------------------------------------------------------------------------------


class Client:
    """A request under way. To the agent a client that was killed looks as one that closed its socket: the kernel does it."""

    def __init__(self, pid: int, payloads: Sequence[Path] = (), guard_ms: int = 0, back: Image | None = None) -> None:
        """An apply of `payloads`, or a revert of image `back` to what was built."""
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.link.settimeout(REPLY_SECONDS)
        self.link.connect(str(next(agent.socket for agent in process.find() if agent.pid == pid)))
        self.request = abi.pack_request(abi.Op.APPLY, len(payloads), when=abi.When.QUIESCENT, timeout_ms=30000,
                                        guard_ms=guard_ms)
        if back:
            self.request = abi.pack_request(abi.Op.REVERT, when=abi.When.QUIESCENT, timeout_ms=30000, build_id=back.build_id)
        self.payloads = payloads

    def send(self) -> None:
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(open(path, "rb")).fileno() for path in self.payloads]
            socket.send_fds(self.link, [self.request], files)

    def close(self) -> None:
        self.link.close()


def may_be_after(step: str) -> list[bool]:
    """Whether the request may have been carried out. Pages are closed after an attempt, too, that found a thread in its way."""
    row = "either" if step == "CLOSE" else ROWS[step][2]
    return {"before": [False], "after": [True], "either": [False, True]}[row]


@pytest.mark.parametrize("step", [step for step, row in ROWS.items() if row[2] and step not in ONLY_REVERT])
def test_client_killed_at_a_step(program: Program, payloads: list[Path], fault: Fault, step: str) -> None:
    client = Client(program.pid, payloads, 60_000 if step == "GUARD" else 0)
    with fault.stopped(step, client.send):
        client.close()
    after = is_after(program)            # it answers when it is through with the other one
    assert after in may_be_after(step)
    if after:
        expect_after(program)
        assert process.apply(program.pid, payloads).already
    else:
        expect_before(program)
    expect_next_apply(program, payloads)


@pytest.mark.parametrize("step", [*REVERT, "COMMIT", "HALF", "COMMITTED", "CLOSE", "REPORT", "SEND"])
def test_client_of_a_revert_killed_at_a_step(program: Program, image: Image, payloads: list[Path], fault: Fault,
                                             step: str) -> None:
    process.apply(program.pid, payloads, when="now")
    client = Client(program.pid, back=image)
    with fault.stopped(step, client.send):
        client.close()
    reverted = process.status(program.pid).images[0].generation == 0
    assert reverted in may_be_after(step)
    program.ask("value", r"^value 10\d\n" if reverted else r"^value 11\d\d\n")
    program.ask("data", r"^data 5 5 hello 7\n" if reverted else r"^data 5 5 howdy 7\n")
    program.ask("library", r"^library 77\n", reject="library 5")
    assert process.revert(program.pid, image.build_id.hex(), 0).already is reverted
    program.ask("data", r"^data 5 5 hello 7\n", reject="howdy")
    expect_next_apply(program, payloads)


# ---- the file changes meanwhile ----------------------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_copied_is_refused(program: Program, payloads: list[Path], fault: Fault,
                                                           tmp_path: Path) -> None:
    """Its headers were read and checked: then it is cut, or another payload is written over it."""
    before, mapped = process.status(program.pid).document, settled_maps(program.pid)
    for harm in (b"", payloads[1].read_bytes().ljust(payloads[0].stat().st_size, b"\0")):
        path = tmp_path / "payload.so"
        path.write_bytes(payloads[0].read_bytes())
        caught: list[Exception] = []

        def apply(path: Path = path, caught: list[Exception] = caught) -> None:
            try:
                process.apply(program.pid, [path], when="now", timeout=REPLY_SECONDS)
            except process.AgentError as e:
                caught.append(e)

        client = threading.Thread(target=apply)
        with fault.stopped("COPY", client.start):
            path.write_bytes(harm)
        client.join(REPLY_SECONDS)
        error = caught[0]
        assert isinstance(error, process.AgentError) and error.code is abi.Code["BAD_PAYLOAD"], error
        assert (process.status(program.pid).document, settled_maps(program.pid)) == (before, mapped)
    expect_before(program)
    expect_next_apply(program, payloads)


# ---- the process is killed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["HEADERS", "MAP", "OPEN", "SIGNAL", "COMMIT", "HALF", "COMMITTED", "CLOSE", "REPORT", "SEND"])
def test_process_killed_at_a_step(program: Program, image: Image, payloads: list[Path], fault: Fault, step: str) -> None:
    fault.set(step, "kill")
    with pytest.raises(process.NoAgent):
        process.apply(program.pid, payloads, when="quiescent")
    assert program.wait() == -signal.SIGKILL
    assert program.pid not in [agent.pid for agent in process.find()]
    fault.set()
    with start(image) as again:
        assert process.apply(again.pid, payloads[:1], when="quiescent").images[0].functions_live == 1
        again.ask("value", "^value 1100\n", reject="value 10")
