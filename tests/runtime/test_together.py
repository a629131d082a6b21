"""Processes that take payloads together, all or none; payloads made by hand."""
from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from runtimetools import SOURCES, Image, Payload, Recipe, build, make_payload, settled_maps, start

from hotreload_tool import abi, process, together
from livetools import REPLY_SECONDS, Program

BALLOT_BYTES = abi.BALLOT.size


@pytest.fixture
def programs(target: Image) -> Iterator[list[Program]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(start(target)) for _ in range(3)]


def give(programs: Sequence[Program], payload: Payload | None, when: str = "quiescent",
         timeout: float = 60.0) -> together.Outcome:
    """All take `payload`, or with none all go back to generation 0."""
    def ask(pid: int) -> together.Ask:
        if payload is None:
            build_id = process.status(pid).images[0].build_id
            return lambda ballot: process.revert(pid, build_id, 0, when=when, timeout=timeout, ballot=ballot)
        return lambda ballot: process.apply(pid, [payload.path], when=when, timeout=timeout, ballot=ballot)

    return together.take({p.pid: ask(p.pid) for p in programs})


@pytest.mark.parametrize("when", ["quiescent", "now"])
def test_all_take_it_and_all_go_back(programs: list[Program], new_value: Payload, newer_value: Payload, when: str) -> None:
    outcome = give(programs, new_value, when)
    assert sorted(outcome.results) == sorted(p.pid for p in programs) and not outcome.failures
    assert [r.images[0].functions_live for r in outcome.results.values()] == [1, 1, 1]
    for program in programs:
        program.ask("value", r"^value 1100\n", reject=r"value 10[0-9]\n")
    assert all(r.already for r in give(programs, new_value, when).results.values())
    assert len(give(programs, newer_value, when).results) == 3
    for program in programs:
        program.ask("value", r"^value -1\n", reject="value [0-9]")
    assert len(give(programs, None, when).results) == 3
    for program in programs:
        program.ask("value", r"^value 101\n", reject="value (-1|1100)")


def test_one_that_has_it_already_does_not_keep_the_others(programs: list[Program], new_value: Payload) -> None:
    process.apply(programs[1].pid, [new_value.path])
    outcome = give(programs, new_value)
    assert [outcome.results[p.pid].already for p in programs] == [False, True, False]
    for program in programs:
        program.ask("value", r"^value 1100\n")


def test_one_that_refuses_keeps_all_as_they_were(programs: list[Program], new_value: Payload, newer_value: Payload) -> None:
    """Two are at generation 1, one is not: generation 2 does not follow there."""
    give(programs[:2], new_value)
    before = [(process.status(p.pid).document, settled_maps(p.pid)) for p in programs]
    outcome = give(programs, newer_value)
    assert not outcome.results
    codes = [getattr(outcome.failures[p.pid], "code", None) for p in programs]
    assert codes == [abi.Code["ABANDONED_BY_OTHERS"]] * 2 + [abi.Code["OUT_OF_ORDER"]]
    assert [(process.status(p.pid).document, settled_maps(p.pid)) for p in programs] == before
    for program in programs[:2]:
        program.ask("value", r"^value 1100\n", reject="-1")
    programs[2].ask("value", r"^value 101\n", reject="-1")
    give(programs[2:], new_value)
    assert len(give(programs, newer_value).results) == 3


def test_one_that_is_stopped_keeps_all_as_they_were(programs: list[Program], new_value: Payload) -> None:
    os.kill(programs[1].pid, signal.SIGSTOP)
    outcome = give(programs, new_value, timeout=1.0)
    os.kill(programs[1].pid, signal.SIGCONT)
    assert not outcome.results and isinstance(outcome.failures[programs[1].pid], process.NoAnswer)
    for program in programs:
        program.ask("value", r"^value 101\n", reject="1100")
        assert process.status(program.pid).images[0].generation == 0
    assert len(give(programs, new_value).results) == 3


# ---- the protocol, by hand ----------------------------------------------------------------------------------------


class Asked:
    """A process that was sent a payload and a ballot; its answer is not read."""

    def __init__(self, program: Program, payload: Payload, ballot: int, *, timeout_ms: int = 60_000,
                 when: abi.When = abi.When.QUIESCENT, op: abi.Op = abi.Op.APPLY) -> None:
        self.link = socket.socket(socket.AF_UNIX)
        self.link.settimeout(60)
        self.link.connect(f"{os.environ['HOTRELOAD_RUNTIME_DIR']}/{program.pid}.sock")
        request = abi.pack_request(op, 1, together=True, when=when, timeout_ms=timeout_ms)
        with open(payload.path, "rb") as file:
            socket.send_fds(self.link, [request], [file.fileno(), ballot])

    def code(self) -> abi.CodeBase:
        with self.link:
            return abi.Code(abi.REPLY.unpack(self.link.recv(abi.REPLY.size, socket.MSG_WAITALL))[2])


def state_of(ballot: together.Ballot) -> tuple[int, int, abi.Decision]:
    """How many are ready, in which round, and what is decided."""
    state = abi.BALLOT.unpack(os.pread(ballot.file, BALLOT_BYTES, 0))[3]
    return state & abi.BALLOT_READY, state >> 12 & 0x3FFFF, ballot.decision()


def wait_for_state(ballot: together.Ballot, wanted: tuple[int, int, abi.Decision], program: Program) -> None:
    for _ in range(100_000):
        if state_of(ballot) == wanted:
            return
        program.ask("twice", r"^twice 42\n")       # passes time, and shows that the program runs
    raise AssertionError(f"{state_of(ballot)}, not {wanted}")


def test_a_client_that_goes_away_before_the_decision(programs: list[Program], new_value: Payload) -> None:
    """Two are prepared and wait for a third that is never asked; then the client is gone."""
    with together.Ballot(3) as ballot:
        asked = [Asked(p, new_value, ballot.file) for p in programs[:2]]
        wait_for_state(ballot, (2, 0, abi.Decision.UNDECIDED), programs[0])
        for each in asked:
            each.link.close()
        wait_for_state(ballot, (0, 0, abi.Decision.ABANDONED), programs[2])
    for program in programs:
        program.ask("value", r"^value 101\n", reject="1100")
        assert process.status(program.pid).images[0].generation == 0
    assert len(give(programs, new_value).results) == 3


def test_a_deadline_in_the_process_lets_go(programs: list[Program], new_value: Payload) -> None:
    """The client is there but does nothing."""
    with together.Ballot(3) as ballot:
        asked = [Asked(p, new_value, ballot.file, timeout_ms=200) for p in programs[:2]]
        assert {each.code() for each in asked} <= {abi.Code["DEADLINE"], abi.Code["ABANDONED_BY_OTHERS"]}
        assert ballot.decision() is abi.Decision.ABANDONED
    programs[0].ask("value", r"^value 101\n", reject="1100")


def test_a_client_that_goes_away_after_the_decision(programs: list[Program], new_value: Payload) -> None:
    """One is stopped after it agreed. All have the patch in the end, whoever reads their answers."""
    with together.Ballot(2) as ballot:
        first = Asked(programs[0], new_value, ballot.file, when=abi.When.NOW)
        wait_for_state(ballot, (1, 0, abi.Decision.UNDECIDED), programs[2])
        os.kill(programs[0].pid, signal.SIGSTOP)       # prepared, and has said so
        os.waitid(os.P_PID, programs[0].pid, os.WSTOPPED | os.WNOWAIT)   # till then it could go on with the second's vote
        second = Asked(programs[1], new_value, ballot.file, when=abi.When.NOW)
        while state_of(ballot)[1] == 0:                # all are prepared; the second is ready in round after round
            assert ballot.decision() is abi.Decision.UNDECIDED, second.code()
            programs[2].ask("twice", r"^twice 42\n")
        assert ballot.decision() is abi.Decision.UNDECIDED
        os.kill(programs[0].pid, signal.SIGCONT)
        wait_for_state(ballot, (0, 0, abi.Decision.COMMITTED), programs[2])
        first.link.close()
        assert second.code() is abi.Code["OK"]
    for program in programs[:2]:
        process.status(program.pid)                    # the agent serves one request after the other
        program.ask("value", r"^value 1100\n", reject="value 101")


@pytest.mark.parametrize("wrong", ["unsealed", "small", "magic", "members", "missing", "dry"])
def test_ballots_that_make_no_sense(target: Image, new_value: Payload, wrong: str) -> None:
    with start(target) as program, together.Ballot(2) as sound:
        file = os.memfd_create("ballot", os.MFD_ALLOW_SEALING)
        os.ftruncate(file, BALLOT_BYTES - 4 if wrong == "small" else BALLOT_BYTES)
        if wrong != "unsealed":
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        if wrong != "small":
            os.pwrite(file, abi.BALLOT.pack(abi.BALLOT_MAGIC + (wrong == "magic"), 0 if wrong == "members" else 2, 0, 0), 0)
        with pytest.raises(process.AgentError) as caught:
            if wrong == "dry":
                process.apply(program.pid, [new_value.path], dry_run=True, ballot=sound.file)
            elif wrong == "missing":
                send_without_ballot(program, new_value)
            else:
                process.apply(program.pid, [new_value.path], ballot=file)
        os.close(file)
        assert caught.value.code is abi.Code["BAD_REQUEST"]
        program.ask("value", r"^value 101\n", reject="1100")


def send_without_ballot(program: Program, payload: Payload) -> None:
    asked = Asked.__new__(Asked)
    asked.link = socket.socket(socket.AF_UNIX)
    asked.link.settimeout(60)
    asked.link.connect(f"{os.environ['HOTRELOAD_RUNTIME_DIR']}/{program.pid}.sock")
    with open(payload.path, "rb") as file:
        socket.send_fds(asked.link, [abi.pack_request(abi.Op.APPLY, 1, together=True)], [file.fileno()])
    raise process.AgentError(asked.code(), "")


# ---- where the threads are ----------------------------------------------------------------------------------------


PAIR = """
int first(void), second(void);
extern int spin_length;
int first_new(void) { return %(n)d; }
int second_new(void) { return %(n)d; }
int pair_new(void) {
  int one = first();
  for (volatile int i = 0; i < spin_length; i++)
    ;
  return one != second();
}
"""
PAIR_NAMES = {"first": "first_new", "second": "second_new", "pair": "pair_new"}
HELD = "int held_new(int fd) { return 100 + fd * 0; }"


@pytest.fixture(scope="module")
def threads(folder: Path) -> Image:
    return build(folder, "threads-together", [SOURCES / "threads.c"])


@pytest.fixture(scope="module")
def held(folder: Path, threads: Image) -> Payload:
    return make_payload(folder, Recipe(threads, HELD, {"held": "held_new"}))


def test_a_thread_in_the_way_in_one_process(threads: Image, held: Payload) -> None:
    """It is named, the threads of the others run on meanwhile, and none is changed; when it has left, all take it."""
    with start(threads) as busy, start(threads) as idle, start(threads) as blocked, ThreadPoolExecutor(1) as pool:
        busy.ask("start spinner 2", r"^started")
        tid = int(blocked.ask("start holder", r"^started (\d+)\n")[1])
        everyone = [busy, idle, blocked]
        waiting = pool.submit(give, everyone, held, timeout=2.5)
        while not waiting.done():
            busy.ask("run 20", r"^ran")
        outcome = waiting.result()
        assert not outcome.results and len(outcome.failures) == 3
        error = outcome.failures[blocked.pid]
        assert isinstance(error, process.AgentError) and error.document["blocked"]["tid"] == tid
        assert f"thread {tid} (holder) is in code that changes" in error.detail
        assert abi.Code["DEADLINE"] in [getattr(e, "code", None) for e in outcome.failures.values()]
        assert [process.status(p.pid).images[0].generation for p in everyone] == [0, 0, 0]
        idle.ask("held", r"^held 1\n", reject="held 100")

        waiting = pool.submit(give, everyone, held)
        while blocked.ask("pending", r"^pending (\d)\n")[1] != "1":
            pass
        blocked.ask("end", r"^ended")
        assert len(waiting.result(60).results) == 3
        for program in (idle, blocked):
            program.ask("held", r"^held 100\n", reject="held 1\n")


def test_calls_never_meet_two_versions(folder: Path, threads: Image) -> None:
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(start(threads)) for _ in range(3)]
        for program in programs:
            program.ask("start spinner 2", r"^started")
        previous = None
        for n in range(1, 5):
            previous = make_payload(folder, Recipe(threads, PAIR % {"n": n}, PAIR_NAMES, previous=previous))
            outcome = give(programs, previous)
            assert [r.images[0].functions_live for r in outcome.results.values()] == [3, 3, 3], outcome.failures
        for program in programs:
            program.ask("first", r"^first 4\n")
            program.ask("end", r"^ended, mixed 0\n")


def test_safepoints_of_all(folder: Path, threads: Image) -> None:
    """The main thread of one sleeps in a declared region; that of another build says nothing of it, and is named."""
    cooperating = build(folder, "cooperating-together", [SOURCES / "threads.c"], flags=["-DCOOPERATES"])
    payload = make_payload(folder, Recipe(cooperating, PAIR % {"n": 1}, PAIR_NAMES))
    mute = make_payload(folder, Recipe(threads, PAIR % {"n": 1}, PAIR_NAMES))
    with start(cooperating) as one, start(cooperating) as two, start(threads) as other:
        for program in (one, two):
            program.ask("start worker 2", r"^started")
        outcome = together.take({p.pid: partial(ask, p, payload if p is not other else mute) for p in (one, two, other)})
        assert not outcome.results
        assert "did not come to a safepoint" in str(outcome.failures[other.pid])
        assert [process.status(p.pid).images[0].generation for p in (one, two, other)] == [0, 0, 0]
        for program in (one, two):
            program.ask("first", r"^first 0\n")
        outcome = give([one, two], payload, "safepoint")
        assert [r.threads_stopped for r in outcome.results.values()] == [2, 2], outcome.failures
        for program in (one, two):
            program.ask("first", r"^first 1\n", reject="first 0")
            program.ask("end", r"^ended, mixed 0\n")


def test_programs_that_poll(polling: Image, new_polling: Payload) -> None:
    """Both have to be in hotreload_poll() within 100 ms; where that fails, neither has the patch."""
    with start(polling) as one, start(polling) as other, ThreadPoolExecutor(1) as pool:
        for _ in range(50):
            asked = pool.submit(give, [one, other], new_polling, "now")
            while not asked.done():
                for program in (one, other):
                    program.send("poll\n")
                for program in (one, other):
                    program.expect(r"^poll \d\n")
            if asked.result().results:
                break
            for program in (one, other):
                program.ask("value", r"^value 1\d\d\n", reject="value 11")
        assert len(asked.result().results) == 2
        for program in (one, other):
            program.ask("value", r"^value 11\d\d\n", reject=r"value 1\d\d\n")


def ask(program: Program, payload: Payload, ballot: int | None) -> process.ApplyResult:
    return process.apply(program.pid, [payload.path], when="safepoint", timeout=1.5, ballot=ballot)


# ---- faults -------------------------------------------------------------------------------------------------------


class Faulty:
    """A program built with -DHR_FAULTS, and the files by which it is told what fails (tests/runtime/test_faults.py)."""

    def __init__(self, image: Image, path: Path) -> None:
        for end in ("reached", "go"):
            os.mkfifo(f"{path}.{end}")
        self._reached, self._go = (os.open(f"{path}.{end}", os.O_RDWR) for end in ("reached", "go"))
        self._path = path
        self.set("")
        self.program = start(image, HR_FAULT_FILE=str(path))
        self.pid = self.program.pid

    def set(self, text: str) -> None:
        self._path.write_text(text)

    def wait_reached(self) -> None:
        assert select.select([self._reached], [], [], REPLY_SECONDS)[0]
        os.read(self._reached, 1)

    def close(self) -> None:
        self.program.kill()
        os.close(self._reached)
        os.close(self._go)


@pytest.fixture(scope="module")
def faulty(folder: Path) -> Image:
    return build(folder, "faulty-together", [SOURCES / "target.c"], runtime_flags=("-DHR_FAULTS",))


@pytest.fixture(scope="module")
def payload(folder: Path, faulty: Image) -> Payload:
    return make_payload(folder, Recipe(faulty, "int value_new(void) { return -5; }", {"value": "value_new"}))


@pytest.fixture
def both(faulty: Image, tmp_path: Path) -> Iterator[list[Faulty]]:
    made = [Faulty(faulty, tmp_path / name) for name in ("one", "other")]
    yield made
    for each in made:
        each.close()


@pytest.mark.parametrize("step", ["TRANSACTION", "BALLOT", "MAP", "OPEN", "CODES", "THREADS", "STACKS"])
def test_a_step_that_fails_in_one_process(both: list[Faulty], payload: Payload, step: str) -> None:
    programs = [each.program for each in both]
    before = [(process.status(p.pid).document, settled_maps(p.pid)) for p in programs]
    both[1].set(f"{step}:fail:0")
    outcome = give(programs, payload)
    assert not outcome.results
    assert getattr(outcome.failures[both[0].pid], "code", None) is abi.Code["ABANDONED_BY_OTHERS"]
    assert getattr(outcome.failures[both[1].pid], "code", None) in (abi.Code["NO_MEMORY"], abi.Code["UNSUPPORTED"])
    both[1].set("")
    assert [(process.status(p.pid).document, settled_maps(p.pid)) for p in programs] == before
    for program in programs:
        program.ask("value", r"^value 101\n", reject="-5")
    assert len(give(programs, payload).results) == 2
    for program in programs:
        program.ask("value", r"^value -5\n", reject="value 1")


@pytest.mark.parametrize("step", ["COMMIT", "HALF", "COMMITTED"])
def test_one_that_is_killed_after_the_decision(both: list[Faulty], payload: Payload, step: str) -> None:
    both[1].set(f"{step}:stop:0")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(give, [each.program for each in both], payload)
        both[1].wait_reached()
        os.kill(both[1].pid, signal.SIGKILL)
        outcome = asked.result(REPLY_SECONDS)
    assert outcome.results[both[0].pid].images[0].functions_live == 1
    assert isinstance(outcome.failures[both[1].pid], process.NoAgent)
    both[0].program.ask("value", r"^value -5\n", reject="value 1")
