"""A signal that makes the agent listen again, where the program agreed to it; else it stays unreachable, and says so."""
from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtimetools import Image, Payload, environment, start, wait_for_agent

from hotreload_tool import process
from livetools import Program, runtime_directory

NUMBER = int(signal.SIGUSR2)
AGREED = {"HOTRELOAD_SIGNAL": str(NUMBER)}


@pytest.fixture(autouse=True)
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own."""
    with runtime_directory() as path:
        monkeypatch.setenv("HOTRELOAD_RUNTIME_DIR", str(path))
        yield path


def caught(pid: int) -> int:
    """The signals for which the process has handlers (proc(5): SigCgt)."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigCgt"))
    return int(line.split()[1], 16)


def expect_unreachable(pid: int) -> str:
    with pytest.raises(process.NoAgent) as error:
        process.status(pid)
    return str(error.value)


def test_a_socket_that_was_removed(target: Image, new_value: Payload, sockets: Path) -> None:
    """Also of a child, and twice."""
    with start(target, **AGREED) as program:
        child = int(program.ask("fork", r"^child (\d+)\n")[1])
        wait_for_agent(child)
        for pid in (program.pid, child, child):
            (sockets / f"{pid}.sock").unlink()
            assert f"`kill -{NUMBER} {pid}` makes it listen again" in expect_unreachable(pid)
            os.kill(pid, NUMBER)
            assert wait_for_agent(pid).pid == pid
        process.apply(child, [new_value.path])
        program.ask("value", r"^value 1100\n", reject="value 101")
        program.ask("exit", r"^child ended with 768\n")
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value 1100\n", reject="value 101")
        assert program.finish() == 0
    assert list(sockets.iterdir()) == []


def test_a_directory_that_could_not_be_used(target: Image, new_value: Payload, sockets: Path) -> None:
    """At the start: the thread waits for the signal. It says nothing as long as the directory is not right."""
    sockets.chmod(0o755)
    with start(target, **AGREED) as program:
        expect_unreachable(program.pid)
        os.kill(program.pid, NUMBER)
        program.ask("value", r"^value 101\n")
        sockets.chmod(0o700)
        expect_unreachable(program.pid)
        os.kill(program.pid, NUMBER)
        wait_for_agent(program.pid)
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value 1101\n", reject="value 102")


def test_a_program_that_closed_all_descriptors(target: Image, new_value: Payload, sockets: Path) -> None:
    with start(target, **AGREED) as program:
        program.ask("close", r"^closed\n")
        os.kill(program.pid, NUMBER)
        (sockets / f"{program.pid}.sock").unlink(missing_ok=True)
        os.kill(program.pid, NUMBER)
        wait_for_agent(program.pid)
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value 1100\n", reject="value 101")


def test_a_program_that_polls(polling: Image, sockets: Path) -> None:
    sockets.chmod(0o755)
    with start(polling, **AGREED) as program:
        program.ask("poll", r"^poll 0\n")
        sockets.chmod(0o700)
        program.ask("poll", r"^poll 0\n")
        assert list(sockets.iterdir()) == []
        os.kill(program.pid, NUMBER)
        program.ask("poll", r"^poll 0\n")
        assert [path.name for path in sockets.iterdir()] == [f"{program.pid}.sock"]
        (sockets / f"{program.pid}.sock").unlink()
        os.kill(program.pid, NUMBER)
        program.ask("poll", r"^poll 0\n")
        assert [path.name for path in sockets.iterdir()] == [f"{program.pid}.sock"]


@pytest.mark.parametrize("value", ["", "0", "9", "11", "33", "65", "12x", "USR2"])
def test_signals_that_nobody_agreed_to(target: Image, value: str) -> None:
    with start(target) as plain, start(target, HOTRELOAD_SIGNAL=value) as program:
        assert caught(program.pid) == caught(plain.pid)
        assert caught(plain.pid) >> (NUMBER - 1) & 1 == 0
        process.status(program.pid)


def test_a_signal_that_is_in_use_is_left_alone(target: Image, sockets: Path) -> None:
    """Here it is ignored, as by nohup."""
    ignoring = f"import os, signal, sys; signal.signal({NUMBER}, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    with Program([sys.executable, "-c", ignoring, target.path], env=environment(**AGREED)) as program:
        program.expect(r"^ready\n")
        assert caught(program.pid) >> (NUMBER - 1) & 1 == 0
        (sockets / f"{program.pid}.sock").unlink()
        os.kill(program.pid, NUMBER)
        assert "HOTRELOAD_SIGNAL" not in expect_unreachable(program.pid)
        program.ask("value", r"^value 101\n")
