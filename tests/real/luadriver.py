"""A running Lua interpreter with the driver script in it, and Lua's source with edits in it."""
from __future__ import annotations

import os
import signal
from pathlib import Path

from lua.edits import Check, Edit

from livetools import LiveError, Program, Workspace, clean_environment, copy_project, edit

HERE = Path(__file__).resolve().parent
PROJECT = HERE / "lua"
DRIVER = PROJECT / "driver.lua"
PRELUDE = PROJECT / "prelude.lua"
SCRIPTS = sorted((PROJECT / "scripts").glob("*.lua"))
_SQUARES = sum(i * i for i in range(1, 5001)) + sum(range(1, 101))


class Lua:
    """The interpreter at the other end of a Program. Every question has one answer, and nothing waits for time."""

    def __init__(self, program: Program, live: bool = True) -> None:
        self.program = program
        self.live = live                                 # whether it takes edits while it runs
        self.counters: dict[str, Edit] = {}              # the edits with a counter that are in, by name
        self._calls: dict[str, int] = {}                 # and the calls that each has counted
        self._states = 0
        program.expect(r"^ready\n")

    @property
    def pid(self) -> int:
        return self.program.pid

    def ask(self, chunk: str) -> str:
        """The driver's answer to one line of Lua."""
        for name, change in self.counters.items():
            self._calls[name] += chunk.count(change.counted)
        return self.program.ask(chunk, r"^((?:ok|error)\t.*)\n")[1]

    def expect(self, chunk: str, answer: str) -> None:
        got = self.ask(chunk)
        wanted = answer.format(pid=self.pid)
        if got != wanted:
            raise LiveError(f"asked: {chunk}\nexpected: {wanted!r}\nanswered: {got!r}")

    def expect_before(self, change: Edit) -> None:
        """It answers as before the edit."""
        for check in self._checks(change):
            if not check.interrupt:
                self.expect(check.ask, check.old)

    def _checks(self, change: Edit) -> list[Check]:
        return [check for check in change.checks if self.live or not check.live]

    def expect_after(self, change: Edit) -> None:
        """It answers as after the edit, and no longer as before."""
        if change.counter:
            self.counters[change.name] = change
            self._calls[change.name] = 0              # a new variable starts with its initialiser
            self._expect_counted(change)
        for check in self._checks(change):
            if check.interrupt:
                self.interrupt(check)
            else:
                self.expect(check.ask, check.new)
        if change.retires:
            self.counters.pop(change.retires, None)

    def interrupt(self, check: Check, new: bool = True) -> None:
        """Send SIGINT while the script runs, and expect the error it becomes."""
        self.program.ask(check.ask, r"^spinning\n")
        os.kill(self.pid, signal.SIGINT)
        answer = self.program.expect(r"^((?:ok|error)\t.*)\n")[1]
        wanted = check.new if new else check.old
        if answer != wanted:
            raise LiveError(f"interrupted: {check.ask}\nexpected: {wanted!r}\nanswered: {answer!r}")

    def expect_state(self) -> None:
        """Everything the script made before the patches is as it must be, and every counter goes on by one."""
        n = self._states = self._states + 1
        self.expect("return state()", f"ok\t{n} {10 * n} {n} {1000 * n} {5 * n} {n} whole {n} 1 alive {_SQUARES}")
        for change in self.counters.values():
            self._expect_counted(change)

    def _expect_counted(self, change: Edit) -> None:
        answer = self.ask(change.counter)
        if answer != f"ok\t{self._calls[change.name]}":
            raise LiveError(f"{change.counter}: {answer!r} after {self._calls[change.name]} calls")

    def end(self) -> None:
        """Close its input; it says goodbye and exits with 0."""
        code = self.program.finish()
        if code != 0 or not self.program.transcript.endswith("bye\n"):
            raise LiveError(f"the interpreter ended with {code}:\n{self.program.transcript[-500:]}")


def make_edit(source: Path, change: Edit) -> dict[Path, bytes]:
    """Edit the files; returns what they held, for `restore`."""
    before = {source / name: (source / name).read_bytes() for name in change.files}
    try:
        for r in change.replacements:
            edit(source / r.file, r.old, r.new)
    except LiveError:
        restore(before)
        raise
    return before


def restore(files: dict[Path, bytes]) -> None:
    for path, content in files.items():
        path.write_bytes(content)


def project(source: Path, target: Path, **variables: str) -> Workspace:
    """Lua's source and an SConstruct for it in `target`; `variables` are added to the environment of all that runs."""
    target.mkdir(parents=True)
    (target / "SConstruct").write_bytes((PROJECT / "SConstruct").read_bytes())
    copy_project(source, target / "src")
    return Workspace(target, clean_environment(**variables))


def start(work: Workspace, program: str = "build/lua", live: bool = True) -> Lua:
    """The project's interpreter with the driver script running in it."""
    return Lua(work.start([program, DRIVER]), live)
