"""A project that is watched while its program runs: what tests of `hotpatch watch` have in common."""
from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from livetools import HOTPATCH, SITE_SCONS, Program, Workspace, edit

MAIN = r"""
#include <stdio.h>
#include "unit.h"
int main(void)
{
  char line[64];
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin))
    printf("one %d two %d kept %d\n", one(), two(), kept());
  return 0;
}
"""
UNIT_H = """\
#define SCALE 1
struct state { int n; };
int one(void); int two(void); int kept(void);
"""
WATCHING = r"watching \d+ files of \d+ objects.*\n"
LIVE = r"prog \(pid \d+\): .* live, generation (\d+)\n"


@dataclass
class Watched:
    """A project that is watched while its program runs."""
    path: Path
    work: Workspace
    session: Program
    program: Program

    def save(self, name: str, old: str, new: str) -> None:
        edit(self.path / "src" / name, old, new)

    def live(self, generation: int, reject: str | None = None) -> None:
        """Wait until the session says that this generation is live."""
        match = self.session.expect(LIVE, reject)
        assert int(match[1]) == generation, self.session.transcript

    def answers(self, one: int, two: int) -> int:
        """What the program says now, and nothing else; returns what it counted."""
        match = self.program.ask("x", r"one (\d+) two (\d+) kept (\d+)\n")
        assert (int(match[1]), int(match[2])) == (one, two), self.program.transcript
        return int(match[3])

    def goes_live(self, name: str, old: str, new: str, generation: int, one: int, two: int) -> int:
        """An edit of the file, what comes of it, and nothing else."""
        self.save(name, old, new)
        self.live(generation)
        return self.answers(one, two)

    def interrupted(self) -> int:
        """Ctrl-C; the session's exit code."""
        os.kill(self.session.pid, signal.SIGINT)
        code = self.session.wait()
        assert "Traceback" not in self.session.transcript
        return code

    def end(self) -> None:
        """Ctrl-C; what is left then must be what `scons hotpatch` would have left."""
        assert self.interrupted() == 0, self.session.transcript
        done = self.work.scons("hotpatch")
        assert "nothing changed" in done.out and "gcc" not in done.out and "cc.sh" not in done.out, done


@contextmanager
def watched_program(work: Workspace, *words: str, command: Sequence[str] = (), tty: bool = False) -> Iterator[Watched]:
    """The program of a project that is built, and a session, by default `hotpatch watch` with `words`."""
    argv = command or [*HOTPATCH, "watch", *words, f"--site-dir={SITE_SCONS}"]
    with work.start(["build/prog"]) as program:
        program.expect("ready")
        with Program(argv, cwd=work.path, env=work.env, tty=tty) as session:
            session.expect(WATCHING)
            yield Watched(work.path, work, session, program)
