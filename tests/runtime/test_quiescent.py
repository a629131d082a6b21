"""Patches of busy programs: no thread in what changes, no call that meets two versions. Payloads are made by hand."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from runtimetools import SANITIZE, SOURCES, Image, Payload, Recipe, Update, build, make_payload, start, wait_until_asleep

from hotreload_tool import abi, process
from livetools import Program

PAIR = """
int first(void);
int second(void);
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
def image(folder: Path) -> Image:
    return build(folder, "threads", [SOURCES / "threads.c"])


@pytest.fixture(scope="module")
def held(folder: Path, image: Image) -> Payload:
    return make_payload(folder, Recipe(image, HELD, {"held": "held_new"}))


@pytest.fixture(scope="module")
def calling(folder: Path, image: Image) -> Payload:
    return make_payload(folder, Recipe(image, "int calls_back_new(int what) { return what + 1000; }",
                                       {"calls_back": "calls_back_new"}))


@pytest.fixture(scope="module")
def first(folder: Path, image: Image) -> Payload:
    return make_payload(folder, Recipe(image, "int first_new(void) { return 7; }", {"first": "first_new"}))


@pytest.fixture(scope="module")
def first_and_data(folder: Path, image: Image) -> Payload:
    """Changes bytes in place, too: nobody may read them half changed, so everybody is halted."""
    update = Update("spin_length", (2000).to_bytes(4, "little"), (2001).to_bytes(4, "little"), abi.UpdateFlags.MERGE)
    return make_payload(folder, Recipe(image, "int first_new(void) { return 7; }", {"first": "first_new"}, [update]))


@pytest.fixture(scope="module")
def chain(folder: Path, image: Image) -> list[Payload]:
    """Generations that each change first(), second() and pair(), which calls both."""
    made: list[Payload] = []
    for n in range(1, 13):
        made.append(make_payload(folder, Recipe(image, PAIR % {"n": n}, PAIR_NAMES, previous=made[-1] if made else None)))
    return made


def quiescent(pid: int, *payloads: Payload, timeout: float = 60.0) -> process.ApplyResult:
    return process.apply(pid, [p.path for p in payloads], when="quiescent", timeout=timeout)


def blocked(pid: int, *payloads: Payload, when: str = "quiescent", timeout: float = 2.0) -> process.AgentError:
    """The refusal at the deadline; the process is as before."""
    before = process.status(pid).document
    with pytest.raises(process.AgentError) as caught:
        process.apply(pid, [p.path for p in payloads], when=when, timeout=timeout)
    assert caught.value.code is abi.Code["DEADLINE"] and caught.value.exit_code == 4
    assert process.status(pid).document == before
    return caught.value


# ---- versions do not mix ------------------------------------------------------------------------------------------


def apply_all(program: Program, chain: Sequence[Payload], when: str, place: str = "spinner") -> int:
    """How often a thread saw two versions in one call, over all generations."""
    program.ask(f"start {place} 2", r"^started")
    for payload in chain:
        program.ask("run 200", r"^ran")
        assert process.apply(program.pid, [payload.path], when=when, timeout=60).images[0].functions_live == 3
    program.ask("run 200", r"^ran")
    program.ask("first", rf"^first {len(chain)}\n")
    return int(program.ask("end", r"^ended, mixed (\d+)\n")[1])


@pytest.mark.both_kinds
def test_a_call_never_meets_two_versions(image: Image, chain: list[Payload]) -> None:
    with start(image) as program:
        assert apply_all(program, chain, "quiescent") == 0


def test_nor_does_one_of_a_thread_that_wakes_up(image: Image, chain: list[Payload]) -> None:
    """The thread may be left asleep, and then it calls while the patch goes in."""
    with start(image) as program:
        assert apply_all(program, chain, "quiescent", "napper") == 0


def test_with_now_it_does(image: Image, chain: list[Payload]) -> None:
    """The control: the same threads, the same patches, and the test above would see a mix."""
    for _ in range(10):
        with start(image) as program:
            if apply_all(program, chain, "now"):
                return
    pytest.fail("no mix was seen: the test of quiescence would not see one either")


# ---- who is in the way, and who is not -----------------------------------------------------------------------------


def test_a_thread_in_the_function_blocks_and_is_named(image: Image, held: Payload) -> None:
    with start(image) as program:
        tid = int(program.ask("start holder", r"^started (\d+)\n")[1])
        error = blocked(program.pid, held)
        assert f"thread {tid} (holder) is in code that changes" in error.detail
        seen = error.document["blocked"]
        assert (seen["tid"], seen["thread"], seen["obstacle"]) == (tid, "holder", "code")
        assert (seen["build_id"], seen["function"]) == (image.build_id.hex(), image.symbols["held.hr_body"])
        assert 0 < seen["address"] - seen["function"] <= image.sizes["held.hr_body"]
        program.ask("end", r"^ended")
        assert quiescent(program.pid, held).images[0].functions_live == 1
        program.ask("held", r"^held 100\n")


def test_it_goes_in_as_soon_as_the_thread_leaves(image: Image, held: Payload) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with start(image) as program, ThreadPoolExecutor(1) as pool:
        program.ask("start holder", r"^started")
        waiting = pool.submit(quiescent, program.pid, held)
        while program.ask("pending", r"^pending (\d)\n")[1] != "1":
            pass
        program.ask("end", r"^ended")
        result = waiting.result(60)
        assert result.images[0].functions_live == 1 and result.frames_in_old_code == 0
        program.ask("held", r"^held 100\n")


def test_stale_addresses_do_not_block(image: Image, held: Payload) -> None:
    """16 KiB of return addresses into the function lie in a buffer that was never initialised."""
    with start(image) as program:
        program.ask("start stale", r"^started")
        assert quiescent(program.pid, held).images[0].functions_live == 1
        program.ask("end", r"^ended")


def test_stale_addresses_block_where_the_stack_cannot_be_unwound(image: Image, held: Payload) -> None:
    """The control: the scan does hit; here nothing can overrule it."""
    with start(image) as program:
        tid = int(program.ask("start undescribed", r"^started (\d+)\n")[1])
        error = blocked(program.pid, held)
        assert f"the stack of thread {tid} (undescribed) holds an address" in error.detail
        program.ask("end", r"^ended")
        assert quiescent(program.pid, held).images[0].functions_live == 1


@pytest.mark.parametrize("place", ["below-coroutine", "below-handler"])
def test_frames_on_another_stack_are_seen(image: Image, calling: Payload, place: str) -> None:
    """The thread runs on a coroutine's stack, or a signal's; the function waits on the one it was started with."""
    with start(image) as program:
        program.ask(f"start {place}", r"^started")
        error = blocked(program.pid, calling)
        assert f"({place})" in error.detail
        program.ask("end", r"^ended")
        quiescent(program.pid, calling)
        program.ask("calls_back", r"^calls_back 1000\n", reject="calls_back 1\n")


@pytest.mark.parametrize("place, asleep", [("coroutine", 1), ("handler", 1), ("masked", 2)])
def test_other_stacks_and_masked_signals_do_not_block(image: Image, calling: Payload, place: str, asleep: int) -> None:
    """Threads on other stacks than their own are halted: which of them they are on is not known without that."""
    with start(image) as program:
        program.ask(f"start {place}", r"^started")
        result = quiescent(program.pid, calling)
        assert (result.threads_stopped + result.threads_asleep, result.images[0].functions_live) == (2, 1)
        assert result.threads_asleep <= asleep
        program.ask("calls_back", r"^calls_back 1000\n")
        program.ask("end", r"^ended")


def test_a_thread_that_takes_no_signal_at_all_is_named(image: Image, first_and_data: Payload) -> None:
    with start(image) as program:
        tid = int(program.ask("start deaf", r"^started (\d+)\n")[1])
        error = blocked(program.pid, first_and_data)
        assert f"thread {tid} (deaf) could not be stopped: it blocks every signal" in error.detail
        program.ask("first", r"^first 0\n")
        program.ask("end", r"^ended")
        quiescent(program.pid, first_and_data)
        program.ask("first", r"^first 7\n")


def test_a_thread_that_takes_no_signal_may_be_left_asleep(image: Image, first: Payload) -> None:
    with start(image) as program:
        program.ask("start deaf", r"^started")
        assert quiescent(program.pid, first).threads_asleep >= 1
        program.ask("first", r"^first 7\n")
        program.ask("end", r"^ended")


def test_a_body_from_before_a_patch_with_now_counts(image: Image, held: Payload, folder: Path) -> None:
    """The thread still is in generation 0; the patch from 1 to 2 must not overtake it."""
    newer = make_payload(folder, Recipe(image, "int held_new(int fd) { return 200 + fd * 0; }", {"held": "held_new"},
                                        previous=held))
    with start(image) as program:
        program.ask("start holder", r"^started")
        process.apply(program.pid, [held.path], when="now")
        assert "(holder) is in code" in blocked(program.pid, newer).detail
        program.ask("end", r"^ended")
        quiescent(program.pid, newer)
        program.ask("held", r"^held 200\n")


def test_parts_of_a_function_count(image: Image, folder: Path) -> None:
    """calls_back() is declared to be a part of first(): a .cold half, say."""
    part = (image.symbols["calls_back.hr_body"], image.sizes["calls_back.hr_body"], 0)
    payload = make_payload(folder, Recipe(image, "int first_new(void) { return 8; }", {"first": "first_new"}, parts=[part]))
    with start(image) as program:
        program.ask("start below-coroutine", r"^started")
        error = blocked(program.pid, payload)
        assert error.document["blocked"]["function"] == image.symbols["first.hr_body"]
        program.ask("end", r"^ended")
        quiescent(program.pid, payload)
        program.ask("first", r"^first 8\n")


# ---- many threads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place, n", [("spinner", 100), ("masked", 200)])
def test_many_threads(image: Image, first: Payload, place: str, n: int) -> None:
    with start(image) as program:
        program.ask(f"start {place} {n}", r"^started")
        result = quiescent(program.pid, first)
        assert result.threads_stopped + result.threads_asleep == n + 1
        program.ask("first", r"^first 7\n")
        program.ask("end", r"^ended")


@pytest.mark.parametrize("place", ["parent", "forker"])
def test_threads_and_children_born_meanwhile(image: Image, chain: list[Payload], place: str) -> None:
    with start(image) as program:
        program.ask(f"start {place} 3", r"^started")
        for n, payload in enumerate(chain, 1):
            quiescent(program.pid, payload)
            program.ask("first", rf"^first {n}\n")
        program.ask("end", r"^ended, mixed 0\n")


def test_setuid_still_reaches_all_threads(image: Image, chain: list[Payload]) -> None:
    """glibc uses the signal that we use to make all threads change their ids."""
    with start(image) as program:
        program.ask("start spinner 4", r"^started")
        for payload in chain:
            quiescent(program.pid, payload)
            program.ask("setuid", r"^setuid 0\n")
        program.ask("end", r"^ended, mixed 0\n")


def test_new_code_alone_stops_nobody(image: Image, folder: Path) -> None:
    payload = make_payload(folder, Recipe(image, "int new_function(void) { return 1; }", {}))
    with start(image) as program:
        program.ask("start holder", r"^started")
        result = quiescent(program.pid, payload)
        assert (result.threads_stopped, result.pause_us) == (0, 0)
        program.ask("end", r"^ended")


# ---- sleeping in the kernel --------------------------------------------------------------------------------------------

SLEEPS = {"read": "read=1/-", "recv": "recv=1/-", "semaphore": "semaphore=0/-", "condition": "condition=0/-",
          "futex": "futex=0/-",
          # These end with EINTR after any signal handler, signal(7) says, and are made anew:
          "poll-for-ever": "poll=1/-", "epoll": "epoll=1/-", "select": "select=1/-", "sleep": "sleep=1/-",
          "sem_timedwait": "sem_timedwait=0/-"}
# And these cannot be: nobody knows how much of their time is left.
ENDED = {"poll": "poll=-1/EINTR", "finite-epoll": "epoll=-1/EINTR", "nanosleep": "nanosleep=-1/EINTR"}


# What all of them end with if nobody wakes them.
UNDISTURBED = {**SLEEPS, "poll": "poll=1/-", "finite-epoll": "epoll=1/-", "nanosleep": "nanosleep=0/-"}


@pytest.mark.parametrize("call", UNDISTURBED)
def test_sleepers_are_left_asleep(image: Image, first: Payload, call: str) -> None:
    with start(image) as program:
        program.ask(f"sleep {call}", r"^asleep\n")
        wait_until_asleep(program.pid)
        result = quiescent(program.pid, first)
        assert (result.threads_interrupted, result.threads_asleep >= 1) == (0, True)
        process.revert(program.pid, image.build_id.hex(), 0)
        quiescent(program.pid, first)
        program.ask("wake", rf"^{UNDISTURBED[call]} woken\n")
        program.ask("first", r"^first 7\n")


@pytest.mark.parametrize("call", SLEEPS)
def test_sleepers_that_are_woken_get_what_they_waited_for(image: Image, first_and_data: Payload, call: str) -> None:
    with start(image) as program:
        program.ask(f"sleep {call}", r"^asleep\n")
        result = quiescent(program.pid, first_and_data)
        assert result.threads_interrupted in (1, 2)     # the main thread may be back at reading commands
        assert result.threads_asleep == 0
        process.revert(program.pid, image.build_id.hex(), 0)
        quiescent(program.pid, first_and_data)
        program.ask("wake", rf"^{SLEEPS[call]} woken\n")
        program.ask("first", r"^first 7\n")


@pytest.mark.parametrize("call", ENDED)
def test_documented_exceptions(image: Image, first_and_data: Payload, call: str) -> None:
    with start(image) as program:
        program.ask(f"sleep {call}", r"^asleep\n")
        quiescent(program.pid, first_and_data)
        program.ask("wake", rf"^{ENDED[call]} woken\n")


def test_a_signal_of_the_program_still_ends_a_call(image: Image, chain: list[Payload]) -> None:
    with start(image) as program:
        program.ask("sleep pause", r"^asleep\n")
        for payload in chain[:4]:
            quiescent(program.pid, payload)
        program.ask("signal", r"^signalled 0\n")
        program.ask("wake", r"^pause=-1/EINTR woken\n")


# ---- the polling program -------------------------------------------------------------------------------------------------


def test_poll_mode(folder: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    image = build(folder, "threads_polling", [SOURCES / "threads.c"], flags=["-DPOLLS"])
    payload = make_payload(folder, Recipe(image, "int first_new(void) { return 1; }", {"first": "first_new"}))
    with start(image) as program, ThreadPoolExecutor(1) as pool:
        program.ask("start spinner 2", r"^started")
        future = pool.submit(quiescent, program.pid, payload)
        while program.ask("poll", r"^poll (\d)\n")[1] != "1":
            assert not future.done(), future.result()
        assert future.result(60).threads_stopped == 2
        program.ask("first", r"^first 1\n")
        program.ask("end", r"^ended")


# ---- under the sanitizers --------------------------------------------------------------------------------------------------


def test_under_asan(folder: Path) -> None:
    image = build(folder, "threads_asan", [SOURCES / "threads.c"], flags=SANITIZE, runtime_flags=tuple(SANITIZE), link=SANITIZE)
    payload = make_payload(folder, Recipe(image, HELD, {"held": "held_new"}))
    with start(image, ASAN_OPTIONS="detect_leaks=0") as program:
        program.ask("start holder", r"^started")
        assert "(holder)" in blocked(program.pid, payload).detail
        program.ask("end", r"^ended")
        program.ask("start spinner 8", r"^started")
        program.ask("start stale 2", r"^started")
        assert quiescent(program.pid, payload).images[0].functions_live == 1
        program.ask("held", r"^held 100\n")
        program.ask("end", r"^ended, mixed 0\n")
        assert program.finish() == 0
