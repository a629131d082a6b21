"""Children by fork, vfork and posix_spawn, programs that exec, and daemons; also while a patch waits for its moment."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from runtimetools import SOURCES, Image, Payload, Recipe, build, make_payload, settled_maps, start, wait_for_agent

from hotreload_tool import abi, process, together
from livetools import Program, runtime_directory


@pytest.fixture(autouse=True)
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own."""
    with runtime_directory() as path:
        monkeypatch.setenv("HOTRELOAD_RUNTIME_DIR", str(path))
        yield path


@pytest.fixture(scope="module")
def threads(folder: Path) -> Image:
    return build(folder, "threads-fork", [SOURCES / "threads.c"])


@pytest.fixture(scope="module")
def held(folder: Path, threads: Image) -> Payload:
    return make_payload(folder, Recipe(threads, "int held_new(int fd) { return 100 + fd * 0; }", {"held": "held_new"}))


@contextlib.contextmanager
def waiting(program: Program, payload: Payload, when: str) -> Iterator[Future[process.ApplyResult]]:
    """An apply that waits for its moment, for a minute at most."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(process.apply, program.pid, [payload.path], when=when, timeout=60)
        while program.ask("pending", r"^pending (\d)\n")[1] != "1":
            pass
        yield asked


def writable_pages(pid: int) -> int:
    return sum(m.end - m.start for m in settled_maps(pid) if "w" in m.permissions)


@pytest.mark.both_kinds
@pytest.mark.parametrize("when", ["quiescent", "safepoint"])
def test_a_child_born_while_a_patch_waits(threads: Image, held: Payload, when: str) -> None:
    """A thread is in the way. The child does not have it: it begins as if nothing had been prepared, and takes the patch."""
    with start(threads) as program:
        before = writable_pages(program.pid)
        program.ask("start holder", r"^started")
        with waiting(program, held, when) as asked:
            child = int(program.ask("fork", r"^child (\d+)\n")[1])
            status = wait_for_agent(child)
            image, = status.images
            assert (image.generation, image.payloads, image.arena_used_end) == (0, [], threads.arena)
            assert writable_pages(child) <= before
            assert not asked.done()
            result = process.apply(child, [held.path])
            assert (result.already, result.images[0].functions_live) == (False, 1)
            program.ask("held", r"^held 100\n", reject="held 1\n")       # the child answers
            assert process.revert(child, threads.build_id.hex(), 0).images[0].generation == 0
            program.ask("held", r"^held 1\n", reject="held 100")
            program.ask("exit", r"^child ended with 0\n")
            assert process.exists(program.pid)
            program.ask("end", r"^ended")
            if when == "quiescent":
                assert asked.result(60).images[0].functions_live == 1
                program.ask("held", r"^held 100\n", reject="held 1\n")
            else:
                program.kill()


def test_a_child_born_while_other_processes_are_waited_for(target: Image, new_value: Payload, newer_value: Payload) -> None:
    """Nor is it a member of what its parent takes part in. Its own child is like it."""
    with start(target) as program, start(target) as other, together.Ballot(2) as ballot, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(process.apply, program.pid, [new_value.path], when="now", timeout=60, ballot=ballot.file)
        while program.ask("generation", r"^generation 0 pending (\d)\n")[1] != "1":
            pass
        child = int(program.ask("fork", r"^child (\d+)\n")[1])
        grandchild = int(program.ask("fork", r"^child (\d+)\n")[1])
        for pid in (child, grandchild):
            assert wait_for_agent(pid).images[0].generation == 0
            process.apply(pid, [new_value.path], when="now")
        process.apply(grandchild, [newer_value.path])
        program.ask("value", r"^value -1\n")
        program.ask("exit", r"^child ended with 768\n")
        program.ask("value", r"^value 1100\n")
        program.ask("exit", r"^child ended with 768\n")
        assert not asked.done()
        process.apply(other.pid, [new_value.path], when="now", timeout=60, ballot=ballot.file)
        assert asked.result(60).images[0].functions_live == 1
        program.ask("value", r"^value 1100\n", reject="value 101")


def test_exec_begins_anew(target: Image, library: Image, new_value: Payload, sockets: Path) -> None:
    with start(target) as program:
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value 1100\n")
        program.ask(f"exec {target.path}", r"^ready\n")
        program.ask("value", r"^value 101\n", reject="1100")
        assert process.status(program.pid).images[0].generation == 0
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value 1101\n", reject="value 102")
        program.send("exec /bin/cat\n")
        while os.readlink(f"/proc/{program.pid}/exe") == str(target.path):     # what comes earlier, it might have read
            pass
        program.ask("echo", r"^echo\n")
        with pytest.raises(process.NoAgent):
            process.apply(program.pid, [new_value.path])
        assert program.finish() == 0
    assert process.find() == [] and list(sockets.iterdir()) == []


def test_a_vforked_child_is_waited_for(target: Image, new_value: Payload) -> None:
    """It runs on its parent's stack, which can't be looked at: only `now` does not wait for its exec."""
    with start(target) as program:
        program.ask("vfork", r"^waiting\n")
        with pytest.raises(process.AgentError) as caught:
            process.apply(program.pid, [new_value.path], when="quiescent", timeout=0.5)
        assert caught.value.code is abi.Code["DEADLINE"] and f"thread {program.pid} " in caught.value.detail
        assert process.status(program.pid).images[0].generation == 0
        program.send("x")
        program.expect(r"^vforked, status 0\n")
        program.ask("value", r"^value 101\n")
        program.ask("vfork", r"^waiting\n")
        assert process.apply(program.pid, [new_value.path], when="now").images[0].functions_live == 1
        program.send("x")
        program.expect(r"^vforked, status 0\n")
        program.ask("value", r"^value 1101\n", reject="value 102")
        program.ask("spawn", r"^spawned, status 0\n")
        process.status(program.pid)
        assert program.finish() == 0


def test_a_daemon(target: Image, new_value: Payload, newer_value: Payload, sockets: Path) -> None:
    """Forked twice, all descriptors closed; what its grandparent had stays live."""
    with start(target) as program:
        process.apply(program.pid, [new_value.path])
        daemon = int(program.ask("daemon", r"^daemon (\d+)\n")[1])
        assert wait_for_agent(daemon).images[0].generation == 1
        program.ask("value", r"^value 1100\n")
        process.apply(daemon, [newer_value.path])
        program.ask("value", r"^value -1\n", reject="value [0-9]")
        assert [agent.pid for agent in process.find()] == [daemon]
        assert [path.name for path in sockets.iterdir()] == [f"{daemon}.sock"]
        program.finish()
