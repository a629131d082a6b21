"""The systems that benchmarks/side_by_side.py compares, each behind the interface below.

Another system takes part through a class of its own: `python benchmarks/side_by_side.py --system FILE.py:CLASS`. What it
needs to be built from is its user's to supply.
"""
from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from livetools import SITE_SCONS, LiveError, Program, clean_environment, run

PROJECT = Path(__file__).resolve().parent / "lua"
ANSWER_SECONDS = 60.0


class Refused(Exception):
    """The system did not take the edit, and says why. The program runs on as it was."""


@dataclass
class Taken:
    """The system says that the edit is live. `pause_us`: how long the program did not run, as far as the system can say."""
    pause_us: float | None = None


class System(ABC):
    """One way to get an edit of the program's source into the program that runs."""
    name: str
    kind = "plain"              # of build, see lua/SConstruct

    def __init__(self, sources: Path, folder: Path) -> None:
        self.path = folder / re.sub(r"\W+", "-", self.name)
        shutil.copytree(PROJECT, self.path)
        shutil.copytree(sources, self.path / "src")
        self.env = clean_environment(HOTRELOAD_RUNTIME_DIR=str(folder / "sockets"))
        self.program: Program | None = None

    def build(self) -> None:
        """All of the program, from nothing."""
        self.scons().check()

    @abstractmethod
    def update(self, edited: list[str]) -> Taken:
        """Make the saved edit of these files live. Raises Refused."""

    # ---- what most systems share ------------------------------------------------------------------------------

    def scons(self, *args: str, launcher: tuple[str, ...] = ()) -> Build:
        argv = [*launcher, sys.executable, "-m", "SCons", "-Q", f"--site-dir={SITE_SCONS}", f"KIND={self.kind}", *args]
        done = run(argv, cwd=self.path, env=self.env, timeout=900)
        return Build(done.code, done.text)

    def start(self) -> None:
        self.program = Program([self.path / "build" / "program", *self.arguments()], cwd=self.path, env=self.env)

    def arguments(self) -> list[str]:
        return []

    def ask(self, chunk: str) -> str:
        """The program's answer to a line of Lua."""
        assert self.program
        return self.program.ask(chunk, r"^(.*)\n", timeout=ANSWER_SECONDS)[1]

    def compile_command(self, source: str) -> list[str]:
        """What this system runs to compile `source`, without the system."""
        (self.path / source).touch()
        shown = self.scons("--dry-run", "--debug=explain").text
        lines = [line for line in shown.splitlines() if line.startswith("gcc ") and line.endswith(source)]
        words = shlex.split(lines[0]) if lines else ["gcc", "-c", "-O2", "-g", "-std=gnu99", "-DLUA_USE_LINUX", "-Isrc", source]
        return words if "-o" in words else [*words, "-o", "bare.o"]

    def private_kib(self) -> int:
        """Memory that is the program's alone, in KiB (proc(5), smaps_rollup)."""
        assert self.program
        text = Path(f"/proc/{self.program.pid}/smaps_rollup").read_text()
        return sum(int(n) for n in re.findall(r"^Private_\w+: +(\d+) kB$", text, re.MULTILINE))

    def stop(self) -> None:
        if self.program:
            self.program.kill()
            self.program = None

    def close(self) -> None:
        with contextlib.suppress(OSError, LiveError):
            self.stop()


@dataclass
class Build:
    """What SCons said."""
    code: int
    text: str

    def check(self) -> Build:
        """Raises Refused where it failed."""
        if self.code:
            errors = [line for line in self.text.splitlines() if "error:" in line]
            raise Refused([*errors, *self.text.strip().splitlines()[-1:], f"exit code {self.code}"][0])
        return self


