"""Programs of one thread keep the C library's shortcuts for such programs, beside the agent's thread (runtime/single.c)."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtimetools import (
    SANITIZE,
    SOURCES,
    Image,
    Payload,
    Recipe,
    build,
    environment,
    for_all_users,
    make_payload,
    wait_for_agent,
)
from runtimetools import start_unprivileged as start

from hotreload_tool import abi, process
from livetools import Program

ROUNDS = 600 if os.environ.get("HOTRELOAD_TEST_SIZE") == "full" else 60
CONFINED = """
import ctypes, os, struct, sys
code = [(0x06, 0, 0, 0x7fff0000)]      # SECCOMP_RET_ALLOW
buffer = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *c) for c in code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_char_p(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(buffer))), 0, 0) == 0
"""


@pytest.fixture(scope="module")
def alone(folder: Path) -> Iterator[Image]:
    """tests/runtime/alone.c, where any user may run it."""
    with for_all_users(build(folder, "alone", [SOURCES / "alone.c"])) as image:
        yield image


@pytest.fixture(scope="module")
def new_value(folder: Path, alone: Image) -> Payload:
    return make_payload(folder, Recipe(alone, "extern int counter;\nint value_new(void) { return -++counter; }",
                                       {"value": "value_new"}))


def becomes(program: Program, flag: int) -> None:
    """The agent sets the flag a little later, in a moment in which the program runs."""
    for _ in range(2000):
        if program.ask("flag", r"^flag ([01])\n")[1] == str(flag):
            return
    raise AssertionError(f"the flag did not become {flag}")


@pytest.mark.both_kinds
def test_a_program_of_one_thread_keeps_the_shortcuts(alone: Image, new_value: Payload, unprivileged: Path) -> None:
    with start(alone) as program:
        program.ask("flag", r"^flag 1\n")
        program.ask("value", r"^value 101\n")
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value -102\n", reject=r"value 102")
        program.ask("work", r"^works 1\n")
        becomes(program, 1)
        process.revert(program.pid, alone.build_id.hex(), 0)
        program.ask("value", r"^value 103\n", reject=r"value -")
        becomes(program, 1)
        assert program.finish() == 0


@pytest.mark.both_kinds
def test_it_allocates_while_patches_come_and_go(alone: Image, new_value: Payload, unprivileged: Path) -> None:
    """Both allocate, and neither damages what the other has."""
    with start(alone) as program:
        program.ask("work", r"^works 1\n")
        for _ in range(ROUNDS):
            process.apply(program.pid, [new_value.path])
            program.ask("value", r"^value -\d+\n")
            process.status(program.pid)
            process.revert(program.pid, alone.build_id.hex(), 0)
            program.ask("value", r"^value \d+\n")
        becomes(program, 1)
        assert program.finish() == 0


def test_signals_that_interrupt_the_allocator(alone: Image, new_value: Payload, unprivileged: Path) -> None:
    with start(alone) as program:
        program.ask("work", r"^works 1\n")
        program.ask("ring", r"^rings\n")
        for _ in range(ROUNDS):
            process.apply(program.pid, [new_value.path])
            program.ask("value", r"^value -\d+\n")
            process.revert(program.pid, alone.build_id.hex(), 0)
            program.ask("value", r"^value \d+\n")
        program.ask("rung", r"^rung 1\n")
        assert program.finish() == 0


def test_a_thread_of_the_program_ends_the_shortcuts(alone: Image, new_value: Payload, unprivileged: Path) -> None:
    with start(alone) as program:
        program.ask("work", r"^works 1\n")
        process.status(program.pid)
        becomes(program, 1)
        program.ask("thread", r"^thread 0\n")
        program.ask("flag", r"^flag 0\n")
        for _ in range(ROUNDS):
            process.apply(program.pid, [new_value.path])
            process.revert(program.pid, alone.build_id.hex(), 0)
            program.ask("flag", r"^flag 0\n")
        assert program.finish() == 0


def test_a_thread_that_starts_while_the_agent_works(alone: Image, new_value: Payload, unprivileged: Path) -> None:
    for _ in range(10):
        with start(alone) as program:
            program.ask("work", r"^works 1\n")
            process.apply(program.pid, [new_value.path])
            program.ask("thread", r"^thread 0\n")
            for _ in range(20):
                program.ask("flag", r"^flag 0\n")
            process.revert(program.pid, alone.build_id.hex(), 0)
            assert program.finish() == 0


def test_a_forked_child_gets_them_back(alone: Image, new_value: Payload, unprivileged: Path) -> None:
    with start(alone) as program:
        process.apply(program.pid, [new_value.path])
        child = int(program.ask("fork", r"^child (\d+)\n")[1])
        assert wait_for_agent(child).images[0].generation == 1
        program.ask("work", r"^works 1\n")
        becomes(program, 1)
        process.revert(child, alone.build_id.hex(), 0)
        program.ask("value", r"^value 101\n", reject=r"value -")
        program.ask("end", r"^child ended with 0\n")
        assert process.status(program.pid).images[0].generation == 1
        program.ask("value", r"^value -101\n")
        assert program.finish() == 0


def refuses(program: Program, payload: Payload) -> None:
    with pytest.raises(process.AgentError, match="not seen outside of the C library") as caught:
        process.apply(program.pid, [payload.path], timeout=0.3)
    assert caught.value.code is abi.Code["DEADLINE"]


@pytest.mark.both_kinds
def test_in_the_c_library_it_is_waited_for(alone: Image, new_value: Payload, unprivileged: Path) -> None:
    """It sorts and compares there, for long: until it has come out the agent does nothing."""
    with start(alone) as program:
        program.ask("sort", r"^sorts\n")
        refuses(program, new_value)
        program.expect(r"^sorted\n")
        program.ask("value", r"^value 101\n")
        program.ask("sort", r"^sorts\n")
        process.apply(program.pid, [new_value.path], timeout=60)
        program.expect(r"^sorted\n")
        program.ask("value", r"^value -102\n", reject=r"value 102")
        assert program.finish() == 0


def test_a_handler_that_interrupted_the_c_library(alone: Image, new_value: Payload, unprivileged: Path) -> None:
    """It waits in a system call that were harmless, in a program that is in the middle of something."""
    with start(alone) as program:
        program.send("trap\n")
        program.expect(r"^trapped\n")
        refuses(program, new_value)
        program.ask("go on", r"^sorted\n")
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value -101\n", reject=r"value 101")
        assert program.finish() == 0


@pytest.mark.parametrize("before, extra", [(CONFINED, {}), ("", {"HOTRELOAD_SIGNAL": "40"}), ("", {"HOTRELOAD_LOCKS": "1"})])
def test_where_it_would_not_be_safe_there_are_locks(alone: Image, new_value: Payload, unprivileged: Path, before: str,
                                                    extra: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTRELOAD_SECCOMP", "1")
    with start(alone, before, **extra) as program:
        program.ask("flag", r"^flag 0\n")
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value -101\n", reject=r"value 101")
        assert program.finish() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose programs may change their user")
def test_a_process_that_may_change_its_user_has_locks(alone: Image, new_value: Payload, sockets: Path) -> None:
    with Program([alone.path], env=environment()) as program:
        program.expect(r"^ready\n")
        program.ask("flag", r"^flag 0\n")
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value -101\n", reject=r"value 101")
        assert program.finish() == 0


def test_a_program_that_sleeps_is_not_woken(alone: Image, new_value: Payload, unprivileged: Path) -> None:
    with start(alone) as program:
        program.ask("flag", r"^flag 1\n")
        for _ in range(20):
            process.status(program.pid)
        switches = Path(f"/proc/{program.pid}/task/{program.pid}/status").read_text()
        process.status(program.pid)
        assert Path(f"/proc/{program.pid}/task/{program.pid}/status").read_text() == switches
        assert program.finish() == 0


def test_under_sanitizers(folder: Path, unprivileged: Path) -> None:
    flags = [*SANITIZE, "-fno-omit-frame-pointer"]
    image = build(folder, "alone_sanitized", [SOURCES / "alone.c"], flags=flags, link=flags, runtime_flags=tuple(SANITIZE))
    payload = make_payload(folder, Recipe(image, "int value_new(void) { return -5; }", {"value": "value_new"}))
    with for_all_users(image) as copy, start(copy) as program:
        program.ask("work", r"^works 1\n")
        for _ in range(5):
            process.apply(program.pid, [payload.path])
            program.ask("value", r"^value -5\n")
            process.revert(program.pid, image.build_id.hex(), 0)
            program.ask("value", r"^value 1[0-9]{2}\n")
        assert program.finish() == 0
