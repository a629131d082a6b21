"""What everybody does: build, end the program, start it again."""
from __future__ import annotations

import time

from . import System, Taken


class Restart(System):
    """An ordinary build of what changed; what the program held is lost."""
    name = "rebuild and restart"

    def update(self, edited: list[str]) -> Taken:
        self.scons().check()
        return self.restart()

    def restart(self) -> Taken:
        begun = time.monotonic()
        self.stop()
        self.start()
        self.ask("return 1")
        return Taken((time.monotonic() - begun) * 1e6)


class FullRebuild(Restart):
    """The same without trust in the build's knowledge of what changed."""
    name = "full rebuild and restart"

    def update(self, edited: list[str]) -> Taken:
        self.scons("-c").check()
        return super().update(edited)
