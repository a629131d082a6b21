"""gdb's `compile`: code compiled for, and run in, a process that gdb has stopped."""
from __future__ import annotations

import re
import time

from livetools import run

from . import Refused, System, Taken


class GdbCompile(System):
    """gdb runs what it compiled once and takes it out of the process again (gdb manual, "Compiling and Injecting Code"), so no
    function of the program becomes another one; what it can do is to run a statement. `statement()` measures that."""
    name = "gdb compile"

    def update(self, edited: list[str]) -> Taken:
        raise Refused("compiled code is run once and removed: it replaces no function")

    def statement(self, statement: str) -> Taken:
        """Run one statement of C in the program, and say for how long it stood."""
        assert self.program
        begun = time.monotonic()
        done = run(["gdb", "-q", "-batch", "-nx", "-p", str(self.program.pid), "-ex", f"compile code {statement}"], timeout=120)
        if re.search("error|failed|No symbol", done.text):
            raise Refused(done.text.strip().splitlines()[-1])
        return Taken((time.monotonic() - begun) * 1e6)
