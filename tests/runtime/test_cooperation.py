"""Programs that take part: safepoints, declared regions, hooks."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from runtimetools import SOURCES, Image, Payload, Recipe, build, make_payload, start

from hotreload_tool import abi, process

PAIR_SOURCE = "int first_new(void) { return %(n)d; } int second_new(void) { return %(n)d; }"
PAIR = {"first": "first_new", "second": "second_new"}


@pytest.fixture(scope="module")
def image(folder: Path) -> Image:
    """A program whose main thread, which waits for commands, declares nothing: it is a safepoint by its poll."""
    return build(folder, "threads_cooperating", [SOURCES / "threads.c"], flags=["-DCOOPERATES"])


@pytest.fixture(scope="module")
def chain(folder: Path, image: Image) -> list[Payload]:
    made: list[Payload] = []
    for n in range(1, 11):
        made.append(make_payload(folder, Recipe(image, PAIR_SOURCE % {"n": n}, PAIR, previous=made[-1] if made else None)))
    return made


# ---- safepoints ---------------------------------------------------------------------------------------------------


def mixed(image: Image, chain: list[Payload], when: str) -> int:
    """How often a worker, whose own function is in no patch, saw two versions between two safepoints."""
    with start(image) as program:
        program.ask("start worker 3", r"^started")
        for n, payload in enumerate(chain, 1):
            program.ask("run 100", r"^ran")
            result = process.apply(program.pid, [payload.path], when=when, timeout=60)
            assert result.images[0].functions_live == 2
            if when == "safepoint":
                assert result.threads_stopped == 3
            program.ask("first", rf"^first {n}\n")
        program.ask("run 100", r"^ran")
        return int(program.ask("end", r"^ended, mixed (\d+)\n")[1])


def test_safepoints_keep_versions_apart(image: Image, chain: list[Payload]) -> None:
    assert mixed(image, chain, "safepoint") == 0


@pytest.mark.parametrize("when", ["now", "quiescent"])
def test_without_them_an_unpatched_caller_sees_both(image: Image, chain: list[Payload], when: str) -> None:
    """The control, and the difference between the modes: quiescent speaks of functions in the patch only."""
    assert any(mixed(image, chain, when) for _ in range(10))


def test_regions_need_not_be_waited_for(image: Image, chain: list[Payload]) -> None:
    with start(image) as program:
        program.ask("start region 2", r"^started")
        assert process.apply(program.pid, [chain[0].path], when="safepoint").images[0].functions_live == 2
        program.ask("first", r"^first 1\n")
        program.ask("end", r"^ended")


def test_a_thread_that_does_not_come_is_named(image: Image, chain: list[Payload]) -> None:
    with start(image) as program:
        tid = int(program.ask("start masked", r"^started (\d+)\n")[1])
        with pytest.raises(process.AgentError) as caught:
            process.apply(program.pid, [chain[0].path], when="safepoint", timeout=0.5)
        assert caught.value.code is abi.Code["DEADLINE"]
        assert f"thread {tid} (masked) did not come to a safepoint" in caught.value.detail
        program.ask("first", r"^first 0\n")
        program.ask("end", r"^ended")
        process.apply(program.pid, [chain[0].path], when="safepoint")
        program.ask("first", r"^first 1\n")


def test_pending_is_seen_while_threads_are_waited_for(image: Image, chain: list[Payload]) -> None:
    with start(image) as program, ThreadPoolExecutor(1) as pool:
        program.ask("pending", r"^pending 0\n")
        program.ask("start masked", r"^started")
        waiting = pool.submit(process.apply, program.pid, [chain[0].path], when="safepoint", timeout=60)
        while program.ask("pending-now", r"^pending (\d)\n")[1] != "1":
            pass
        program.ask("end", r"^ended")
        assert waiting.result(60).images[0].functions_live == 2
        program.ask("pending", r"^pending 0\n")


def test_a_thread_that_ended_inside_a_region_is_forgotten(image: Image, chain: list[Payload]) -> None:
    with start(image) as program:
        program.ask("cancel", r"^cancelled\n")
        process.apply(program.pid, [chain[0].path], when="safepoint")
        program.ask("first", r"^first 1\n")


def test_revert_at_safepoints(image: Image, chain: list[Payload]) -> None:
    with start(image) as program:
        program.ask("start worker 2", r"^started")
        process.apply(program.pid, [chain[0].path], when="safepoint")
        process.revert(program.pid, image.build_id.hex(), 0, when="safepoint")
        program.ask("first", r"^first 0\n", reject="first 1")
        program.ask("end", r"^ended, mixed 0\n")


# ---- hooks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["now", "quiescent", "safepoint"])
def test_hooks_run_and_may_refuse(image: Image, chain: list[Payload], when: str) -> None:
    with start(image) as program:
        process.apply(program.pid, [chain[0].path], when=when)
        program.ask("hooks", r"^hooks 1 1 0, 0 to 1\n")
        program.ask("veto 3", r"^veto 3\n")
        before = process.status(program.pid).document
        with pytest.raises(process.AgentError) as caught:
            process.apply(program.pid, [chain[1].path], when=when)
        assert caught.value.code is abi.Code["VETO"] and caught.value.exit_code == 1
        assert "answered 3 to the step from generation 1 to 2" in caught.value.detail
        with pytest.raises(process.AgentError) as caught:
            process.revert(program.pid, image.build_id.hex(), 0, when=when)
        assert caught.value.code is abi.Code["VETO"]
        assert process.status(program.pid).document == before
        program.ask("first", r"^first 1\n")
        program.ask("hooks", r"^hooks 2 1 1, 1 to 0\n")
        program.ask("veto 0", r"^veto 0\n")
        process.apply(program.pid, [chain[1].path], when=when)
        program.ask("hooks", r"^hooks 3 2 1, 1 to 2\n")
        process.revert(program.pid, image.build_id.hex(), 0, when=when)
        program.ask("hooks", r"^hooks 3 2 2, 2 to 0\n")
        program.ask("first", r"^first 0\n")


def test_hooks_do_not_run_for_nothing(image: Image, chain: list[Payload]) -> None:
    with start(image) as program:
        process.apply(program.pid, [chain[0].path], dry_run=True)
        program.ask("hooks", r"^hooks 0 0 0")
        process.apply(program.pid, [chain[0].path])
        assert process.apply(program.pid, [chain[0].path]).already
        program.ask("hooks", r"^hooks 1 1 0")
