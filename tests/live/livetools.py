"""Driving real programs in tests: start one, wait for what it prints, edit its source, build it, patch it.

Nothing here sleeps. Every wait is for an event (bytes on a pipe, the end of a child) and has a bound; running into
the bound is a failure that shows what was seen so far. Every child has a process group of its own, which is killed
when its time is over, so that no test leaves anything running.

A test of a patch looks like this::

    with work.start(["build/game"]) as game:
        game.ask("draw", r"old picture\\n")
        edit(work.path / "game.c", "old picture", "new picture")
        work.scons("hotpatch")
        game.ask("draw", r"new picture\\n", reject="old picture")
"""
from __future__ import annotations

import codecs
import compileall
import contextlib
import json
import os
import pty
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, final

import stubkind

REPO = Path(__file__).resolve().parents[2]
SITE_SCONS = REPO / "site_scons"
SCONS = [sys.executable, "-m", "SCons", "-Q", f"--site-dir={SITE_SCONS}", *stubkind.ARGUMENTS]
HOTPATCH = [sys.executable, "-m", "hotreload_tool"]

DONE, REFUSED, USAGE, NO_PROCESS, DEADLINE, DAMAGED = range(6)   # exit codes of `hotpatch`

BUILD_SECONDS = 300.0    # bounds, not expectations: generous, because machines that run tests are busy
REPLY_SECONDS = 60.0
_CHUNK = 1 << 16
_SHOWN = 4000            # characters of a transcript that a failure shows


class LiveError(AssertionError):
    """A program or command did not do what the test waits for. The message shows what it did."""


def compile_modules(checkout: Path = REPO) -> None:
    """What installing the tool does: no process of it compiles its modules again."""
    compileall.compile_dir(checkout / "hotreload_tool", quiet=1)


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without what would steer a build or the tool; `extra` is added.

    The repository is put on PYTHONPATH, so that `python -m hotreload_tool` works in any directory.
    """
    kept = {k: v for k, v in os.environ.items() if k != "SCONSFLAGS" and not k.startswith(("HOTRELOAD_", "HOTPATCH_"))}
    return {**kept, "LC_ALL": "C", "PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1",
            "HOTRELOAD_RUNTIME_CACHE": str(REPO / "build" / "runtime-cache"), **stubkind.ENVIRONMENT, **extra}


@contextlib.contextmanager
def runtime_directory() -> Iterator[Path]:
    """A private directory for agents' sockets, short enough for a socket address (108 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="hr-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def copy_project(source: Path, target: Path) -> Path:
    """Copy a source tree without what builds leave behind; returns `target`."""
    leftovers = shutil.ignore_patterns("build", ".hotreload", ".sconsign*", "__pycache__", "*.o", "*.os", "*.hotpatch")
    shutil.copytree(source, target, ignore=leftovers, symlinks=True, dirs_exist_ok=True)
    return target


def edit(path: Path, old: str, new: str) -> None:
    """Replace `old`, which must occur exactly once in the file, by `new`. Bytes around it stay as they were."""
    text = path.read_bytes()
    found = text.count(old.encode())
    if found != 1:
        raise LiveError(f"{path}: the text to replace occurs {found} times, not once:\n{old}")
    path.write_bytes(text.replace(old.encode(), new.encode()))


@dataclass(frozen=True)
class Completed:
    """A command that ended: exit code (negative: signal), standard output and standard error."""
    argv: list[str]
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    def expect_code(self, code: int) -> Completed:
        if self.code != code:
            raise LiveError(f"exit code {self.code}, expected {code}: {self}")
        return self

    def json(self) -> Any:
        """Standard output as the one JSON document it must be."""
        try:
            return json.loads(self.out)
        except ValueError as e:
            raise LiveError(f"standard output is not one JSON document ({e}): {self}") from e

    def __str__(self) -> str:
        shown = " ".join(self.argv)
        return f"{shown}\n--- exit code {self.code}, standard output\n{self.out}\n--- standard error\n{self.err}"


def run(argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None,
        stdin: str = "", timeout: float = BUILD_SECONDS, code: int | None = None) -> Completed:
    """Run a command to its end. Raises LiveError after `timeout` seconds, or when it does not exit with `code`."""
    words = [str(a) for a in argv]
    child = subprocess.Popen(words, cwd=cwd, env=clean_environment() if env is None else dict(env),
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, encoding="utf-8", errors="backslashreplace", start_new_session=True)
    try:
        out, err = child.communicate(stdin, timeout=timeout)
    except BaseException as e:
        kill_group(child.pid)
        out, err = child.communicate()
        if not isinstance(e, subprocess.TimeoutExpired):
            raise
        raise LiveError(f"not done after {timeout} s: {Completed(words, child.returncode, out, err)}") from e
    done = Completed(words, child.returncode, out, err)
    return done if code is None else done.expect_code(code)


def kill_group(pid: int) -> None:
    """Kill the process group of a child started here. Only before the child is reaped: its id is the group's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


@final
class Program:
    """A running program with its standard input and its output (both streams, in order) in the test's hands.

    `tty=True` gives it a pseudo-terminal instead of pipes. Programs on pipes must flush what a test waits for.
    """

    def __init__(self, argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None,
                 tty: bool = False) -> None:
        self.argv = [str(a) for a in argv]
        self.transcript = ""      # all output so far
        self._seen = 0            # how much of it earlier expectations have consumed
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._ended = False
        ours, theirs = pty.openpty() if tty else os.pipe()
        child_in: int = theirs if tty else subprocess.PIPE
        self._out = ours
        try:
            self.process = subprocess.Popen(self.argv, cwd=cwd, env=clean_environment() if env is None else dict(env),
                                            stdin=child_in, stdout=theirs, stderr=theirs, start_new_session=True)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._in = os.dup(ours) if tty else os.dup(_fileno(self.process))
        if self.process.stdin:
            self.process.stdin.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self._code() is None

    def send(self, text: str) -> None:
        """Write `text` to the program's input, as it is (add the newline)."""
        data = text.encode()
        try:
            while data:
                data = data[os.write(self._in, data):]
        except BrokenPipeError as e:
            raise LiveError(f"the program no longer reads its input{self._state()}") from e

    def ask(self, line: str, pattern: str, reject: str | None = None, timeout: float = REPLY_SECONDS) -> re.Match[str]:
        """Send one line and expect `pattern` in the answer."""
        self.send(line + "\n")
        return self.expect(pattern, reject, timeout)

    def expect(self, pattern: str, reject: str | None = None, timeout: float = REPLY_SECONDS) -> re.Match[str]:
        """Wait until the output after the last match has a match of regular expression `pattern`; returns it.

        Fails at once if `reject` matches anywhere between the last match and the end of this one, when the program
        ends first, or after `timeout` seconds. `^` and `$` are ends of lines. Output arrives in pieces: end the
        pattern with a newline where it matters what follows. A program that prints on its own may have old output
        under way when a patch is applied: expect the new text once, then again with `reject`.
        """
        deadline = time.monotonic() + timeout
        while True:
            match = re.compile(pattern, re.MULTILINE).search(self.transcript, self._seen)
            end = match.end() if match else len(self.transcript)
            bad = re.compile(reject, re.MULTILINE).search(self.transcript, self._seen, end) if reject else None
            if bad:
                raise LiveError(f"rejected {reject!r} appeared as {bad.group()!r} before {pattern!r}{self._state()}")
            if match:
                self._seen = end
                return match
            if self._ended:
                raise LiveError(f"the program's output ended before {pattern!r}{self._state()}")
            if not self._read(deadline):
                raise LiveError(f"no {pattern!r} within {timeout} s{self._state()}")

    def skip_output(self) -> None:
        """Consume what has arrived so far without waiting for more."""
        while not self._ended and self._read(0):
            pass
        self._seen = len(self.transcript)

    def wait(self, timeout: float = REPLY_SECONDS) -> int:
        """Read to the end of the output, then give the exit code (negative: signal). What is left of the group dies."""
        deadline = time.monotonic() + timeout
        while not self._ended:
            if not self._read(deadline):
                raise LiveError(f"the program did not end within {timeout} s{self._state()}")
        if self.process.returncode is None and not self._ends(deadline):
            raise LiveError(f"output ended but the program did not, within {timeout} s{self._state()}")
        self._reap()
        return self.process.returncode

    def finish(self, timeout: float = REPLY_SECONDS) -> int:
        """Close the program's input and wait for its end."""
        self._close_input()
        return self.wait(timeout)

    def kill(self) -> None:
        """End the program and all of its group, whatever they do."""
        self._reap()
        self._close_input()
        if self._out >= 0:
            os.close(self._out)
            self._out, self._ended = -1, True

    def _reap(self) -> None:
        """The child stays unreaped until here, so that its group's id can't have become another's."""
        if self.process.returncode is None:
            kill_group(self.pid)
            self.process.wait()

    def _ends(self, deadline: float) -> bool:
        """Wait for the child's end, without reaping it. False when `deadline` passes first."""
        handle = os.pidfd_open(self.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(handle, selectors.EVENT_READ)
                return bool(selector.select(max(0.0, deadline - time.monotonic())))
        finally:
            os.close(handle)

    def _code(self) -> int | None:
        """The exit code (negative: signal), None while it runs; leaves the child unreaped."""
        if self.process.returncode is not None:
            return self.process.returncode
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def _close_input(self) -> None:
        if self._in >= 0:
            os.close(self._in)
            self._in = -1

    def _read(self, deadline: float) -> bool:
        """Take the next output, or note its end. False when `deadline` (monotonic seconds) passes first."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return False
        try:
            data = os.read(self._out, _CHUNK)
        except OSError:           # EIO: how a pseudo-terminal says that nobody holds its other side
            data = b""
        self._ended = not data
        self.transcript += self._decoder.decode(data, final=self._ended)
        return True

    def _state(self) -> str:
        status = self._code()
        state = "running" if status is None else f"ended with {status}"
        return (f"\n{' '.join(self.argv)} (pid {self.pid}, {state}); not yet consumed:\n"
                f"{self.transcript[self._seen:][-_SHOWN:]}\n--- before that:\n{self.transcript[:self._seen][-_SHOWN:]}")

    def __enter__(self) -> Program:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.kill()


def _fileno(process: subprocess.Popen[bytes]) -> int:
    assert process.stdin is not None
    return process.stdin.fileno()


@dataclass
class Workspace:
    """A project directory and the environment in which its builds, its programs and `hotpatch` run."""
    path: Path
    env: dict[str, str] = field(default_factory=clean_environment)
    scons_command: list[str] = field(default_factory=SCONS.copy)
    hotpatch_command: list[str] = field(default_factory=HOTPATCH.copy)

    def scons(self, *args: str, code: int | None = 0, timeout: float = BUILD_SECONDS) -> Completed:
        """`scons ARGS` in the project; `code=None` accepts any exit code (SCons: 0 done, 2 failed)."""
        return run([*self.scons_command, *args], cwd=self.path, env=self.env, timeout=timeout, code=code)

    def hotpatch(self, *args: str | Path, code: int | None = 0, timeout: float = BUILD_SECONDS) -> Completed:
        """`hotpatch ARGS`; `code=None` accepts any exit code."""
        return run([*self.hotpatch_command, *args], cwd=self.path, env=self.env, timeout=timeout, code=code)

    def status(self, program: Program) -> dict[str, Any]:
        """What the program's agent says of itself."""
        answer = self.hotpatch("status", str(program.pid), "--json").json()
        assert isinstance(answer, dict)
        return answer

    def start(self, argv: Sequence[str | Path], *, tty: bool = False) -> Program:
        """Start a program; a relative `argv[0]` is taken from the project directory."""
        first = self.path / argv[0]
        return Program([first, *argv[1:]], cwd=self.path, env=self.env, tty=tty)

    def edit(self, name: str, old: str, new: str) -> None:
        edit(self.path / name, old, new)


@contextlib.contextmanager
def workspace(source: Path, target: Path) -> Iterator[Workspace]:
    """A copy of project `source` in `target`, with a runtime directory of its own."""
    with runtime_directory() as sockets:
        yield Workspace(copy_project(source, target), clean_environment(HOTRELOAD_RUNTIME_DIR=str(sockets)))
