"""All of the program but main() as a shared library that is loaded once more."""
from __future__ import annotations

import re
import shutil
from pathlib import Path

from . import ANSWER_SECONDS, Refused, System, Taken


class Dlopen(System):
    """A copy of the library under another name, so that the loader does not give the old one back. Its state is a new one."""
    name = "dlopen reload"
    kind = "shared"
    _copies = 0

    def arguments(self) -> list[str]:
        return [str(self._copy())]

    def update(self, edited: list[str]) -> Taken:
        assert self.program
        self.scons().check()
        if "main.c" in edited:
            raise Refused("what loads the library is not in it")
        said = self.program.ask(f"!reload {self._copy()}", r"^(reloaded in (\d+) us|failed: .*)\n", timeout=ANSWER_SECONDS)
        if not re.match("reloaded", said[0]):
            raise Refused(said[1])
        return Taken(float(said[2]))

    def _copy(self) -> Path:
        self._copies += 1
        return Path(shutil.copy(self.path / "build" / "libguest.so", self.path / "build" / f"guest-{self._copies}.so"))
