"""This project, by the command that a user types, and by the session that watches."""
from __future__ import annotations

import re
import sys

from livetools import SITE_SCONS, Program

from . import Build, Refused, System, Taken

_UNITS = {"ns": 1e-3, "µs": 1.0, "ms": 1e3, "s": 1e6}


class Hotpatch(System):
    """`scons hotpatch`, from a cold start each time."""
    name = "scons hotpatch"
    kind = "hotreload"

    def update(self, edited: list[str]) -> Taken:
        return taken(self.scons("hotpatch"))


def taken(build: Build) -> Taken:
    """What `scons hotpatch` said, as a result. Raises Refused, with the reason that it gave."""
    if build.code:
        raise Refused(reason(build.text))
    pauses = re.findall(r"stopped for ([\d.]+) ?(ns|µs|ms|s)\b", build.text)
    return Taken(sum(float(n) * _UNITS[unit] for n, unit in pauses) if pauses else 0.0)


def reason(text: str) -> str:
    """The line that says why: the compiler's error, or the one below the tool's verdict."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("gcc ", "scons: "))]
    for number, line in enumerate(lines[:-1]):
        if "error:" in line:
            return line
        if line.endswith("nothing changed:"):
            return lines[number + 1]
    return lines[-1] if lines else "no reason given"


class Watch(System):
    """`scons hotpatch-watch`: one session for as long as the program runs."""
    name = "scons hotpatch-watch"
    kind = "hotreload"
    _session: Program | None = None

    def start(self) -> None:
        super().start()
        argv = [sys.executable, "-m", "SCons", "-Q", f"--site-dir={SITE_SCONS}", f"KIND={self.kind}", "hotpatch-watch"]
        self._session = Program(argv, cwd=self.path, env=self.env)
        self._session.expect(r"^watching .*\n", timeout=600)

    def update(self, edited: list[str]) -> Taken:
        """The save itself is what the session waits for."""
        assert self._session
        said = self._session.expect(_OUTCOME, timeout=120)
        if not said["live"]:
            raise Refused(said["mistake"] or said["reason"] or said["deadline"])
        return taken(Build(0, said["live"]))

    def stop(self) -> None:
        if self._session:
            self._session.kill()
            self._session = None
        super().stop()


_OUTCOME = (r"^(?P<live>\S+ \(pid \d+\): .* live, generation \d+.*\n(?:  .*\n)*?  took .*)\n|"
            r"^.*nothing changed:\n *(?P<reason>.*)\n|^hotpatch: (?P<deadline>.*)\n|^(?P<mistake>.*error:.*)\n")
