"""Coroutines that are switched out: those on declared stacks are seen, and no word on them is taken for a call that is none."""
from __future__ import annotations

from pathlib import Path

import pytest
from runtimetools import SANITIZE, SOURCES, Image, Payload, Recipe, build, make_payload, start

from hotreload_tool import abi, process

SOURCE = "int step_new(int deep) { return 100 + deep; } int other_new(void) { return 2; }"


@pytest.fixture(scope="module")
def image(folder: Path) -> Image:
    return build(folder, "coroutines", [SOURCES / "coroutines.c"])


@pytest.fixture(scope="module")
def payload(folder: Path, image: Image) -> Payload:
    return make_payload(folder, Recipe(image, SOURCE, {"step": "step_new", "other": "other_new"}))


def quiescent(pid: int, payload: Payload, timeout: float = 60.0) -> process.ApplyResult:
    return process.apply(pid, [payload.path], when="quiescent", timeout=timeout)


def blocked(pid: int, payload: Payload) -> process.AgentError:
    before = process.status(pid).document
    with pytest.raises(process.AgentError) as caught:
        quiescent(pid, payload, timeout=2.0)
    assert caught.value.code is abi.Code["DEADLINE"]
    assert process.status(pid).document == before
    return caught.value


def test_a_coroutine_that_waits_in_the_function_blocks_and_is_named(image: Image, payload: Payload) -> None:
    with start(image) as program:
        stack = int(program.ask("start i d", r"^started ([0-9a-f]+)\n")[1], 16)
        error = blocked(program.pid, payload)
        assert f"the coroutine on the stack at {stack:#x} is in code that changes" in error.detail
        seen = error.document["blocked"]
        assert (seen["obstacle"], seen["stack"], seen["tid"]) == ("coroutine", stack, 0)
        assert seen["function"] == image.symbols["step.hr_body"]
        program.ask("other", "^other 1\n")
        program.ask("go on", "^went on\n")
        quiescent(program.pid, payload)
        program.ask("other", "^other 2\n", reject="other 1")


def test_without_a_declaration_nobody_sees_it(image: Image, payload: Payload) -> None:
    """The control, and what docs/consistency.md says."""
    with start(image) as program:
        program.ask("start i -", r"^started")
        quiescent(program.pid, payload)
        program.ask("other", "^other 2\n")


@pytest.mark.parametrize("where", ["o", "s"])
def test_one_that_waits_elsewhere_does_not_block(image: Image, payload: Payload, where: str) -> None:
    """Also over an uninitialised buffer full of return addresses into the function."""
    with start(image) as program:
        program.ask(f"start {where} d", r"^started")
        result = quiescent(program.pid, payload)
        assert result.images[0].functions_live == 2
        program.ask("other", "^other 2\n")


def test_one_that_is_saved_elsewhere_counts_with_all_its_words(image: Image, payload: Payload) -> None:
    with start(image) as program:
        program.ask("start s w", r"^started")
        error = blocked(program.pid, payload)
        assert "it cannot be told whether it is a call" in error.detail
        assert error.document["blocked"]["obstacle"] == "coroutine-stale"
        program.ask("remove", "^removed 0\n")
        program.ask("remove", "^removed -1\n")
        quiescent(program.pid, payload)
        program.ask("other", "^other 2\n")


def test_one_that_has_not_begun_does_not_block(image: Image, payload: Payload) -> None:
    with start(image) as program:
        program.ask("new", "^made\n")
        quiescent(program.pid, payload)


def test_one_that_is_switched_in_is_looked_at_on_its_thread(image: Image, payload: Payload) -> None:
    """Its stack holds words that look like calls, and its context is the one it was made with."""
    with start(image) as program:
        program.ask("thread", "^sleeps\n")
        result = quiescent(program.pid, payload)
        assert result.threads_stopped == 2
        program.ask("wake", "^woken\n")
        program.ask("other", "^other 2\n")


def test_one_of_a_thousand(image: Image, payload: Payload) -> None:
    with start(image) as program:
        program.ask("many", "^started\n")
        assert blocked(program.pid, payload).document["blocked"]["obstacle"] == "coroutine"
        program.ask("end many", "^ended\n")
        result = quiescent(program.pid, payload)
        assert result.images[0].functions_live == 2
        program.ask("other", "^other 2\n")


def test_under_asan(folder: Path) -> None:
    flags = tuple(SANITIZE)
    image = build(folder, "coroutines_asan", [SOURCES / "coroutines.c"], flags=SANITIZE, runtime_flags=flags, link=SANITIZE)
    payload = make_payload(folder, Recipe(image, SOURCE, {"step": "step_new", "other": "other_new"}))
    with start(image, ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=0") as program:
        program.ask("start i d", r"^started")
        assert blocked(program.pid, payload).document["blocked"]["obstacle"] == "coroutine"
        program.ask("go on", "^went on\n")
        quiescent(program.pid, payload)
        program.ask("other", "^other 2\n")
