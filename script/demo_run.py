"""The demo: builds the animation, starts it, edits its source, patches the running process, shows before and after.

Called by script/demo once the tools are installed. Works in a temporary copy, needs no answers, and ends with the
truth: 0 if the process showed the new behaviour with its state intact, 1 if not. Whatever happens, Ctrl-C included,
the animation is ended and the copy removed.
"""
from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

REPO = Path(__file__).resolve().parents[1]
SCONS = [sys.executable, "-m", "SCons", "-Q", f"--site-dir={REPO / 'site_scons'}"]
EDITS = [("'|' : '.'", "'^' : 'o'"), ("a small fountain", "a big fountain"),
         ("scene->score += 1;", "scene->score += 10;")]
LINE = re.compile(r"^frame (\d+) score (\d+) \[.*\] a (\w+) fountain, (\d+) sent up$")
WAIT_S = 30.0        # bound on every wait for the animation
BUILD_S = 60.0       # bound on every build
SHOWN = 106          # characters of a command that are shown: compilers are given long ones


class DemoFailed(Exception):
    """The demo did not show what it promises."""


class Animation:
    """The running program, read line by line with a bound. Every frame is checked to follow the one before."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self.process = subprocess.Popen([directory / "build/animation", "--plain", "100000"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, cwd=directory, env=env)
        self._pending = b""
        self._frame = 0

    def line(self, kind: str | None = None) -> re.Match[str]:
        """The next frame; with `kind`, the next one whose caption says "a KIND fountain"."""
        deadline = time.monotonic() + WAIT_S
        while True:
            text, newline, rest = self._pending.partition(b"\n")
            if newline:
                self._pending = rest
                match = LINE.match(text.decode())
                if not match:
                    raise DemoFailed(f"the animation printed something unexpected: {text!r}")
                if int(match.group(1)) != self._frame + 1:
                    raise DemoFailed(f"frame {match.group(1)} came after frame {self._frame}")
                self._frame += 1
                if kind in (None, match.group(3)):
                    return match
            else:
                self._read(deadline)

    def _read(self, deadline: float) -> None:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            ready = selector.select(max(0.0, deadline - time.monotonic()))
        data = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
        if not data:
            raise DemoFailed("the animation ended" if ready else f"nothing expected came within {WAIT_S:.0f} s")
        self._pending += data

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    work = Path(tempfile.mkdtemp(prefix="hotreload-demo-"))
    try:
        demo(work)
        return 0
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    except (DemoFailed, OSError, subprocess.TimeoutExpired) as e:
        print(f"demo: FAILED: {e}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)


def demo(work: Path) -> None:
    project = work / "animation"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HOTRELOAD", "HOTPATCH", "SCONSFLAGS"))}
    (work / "run").mkdir(mode=0o700)
    env.update(HOTRELOAD_RUNTIME_DIR=str(work / "run"), PYTHONPATH=str(REPO))
    leftovers = shutil.ignore_patterns("build", ".hotreload", ".sconsign*")
    shutil.copytree(REPO / "examples/animation", project, ignore=leftovers)

    say("Build the animation, with one word in its SConstruct")
    command(project, env, "scons", [])
    say("Start it")
    animation = Animation(project, env)
    try:
        patch_it(project, env, animation)
    finally:
        animation.end()


def patch_it(project: Path, env: dict[str, str], animation: Animation) -> None:
    print(f"  (pid {animation.process.pid})")
    before = show(animation, 20, "small")
    say("Edit its source while it runs")
    edit(project / "src/effects.c")
    say("Patch the running process")
    command(project, env, "scons hotpatch", ["hotpatch"])
    say("The same process, after the edit")
    first = animation.line("big")
    after = show(animation, 12, "big")
    if animation.process.poll() is not None:
        raise DemoFailed("the animation ended")
    check_state(before, first, after)
    say(f"The same process ({animation.process.pid}) runs the edit: "
        f"frame {before.group(1)} became frame {after.group(1)}, "
        f"score {before.group(2)} became {after.group(2)}, no frame lost")


def show(animation: Animation, n: int, kind: str) -> re.Match[str]:
    """Print every fourth of `n` frames, all of which must be of `kind`; returns the last."""
    for i in range(n):
        last = animation.line()
        if last.group(3) != kind:
            raise DemoFailed(f"a frame of the wrong code: {last.group()}")
        if i % 4 == 3:
            print(f"  {last.group()}")
    return last


def check_state(before: re.Match[str], first: re.Match[str], after: re.Match[str]) -> None:
    """Frame counter, score and number of particles went on from where they were."""
    for was, now in ((before, first), (first, after)):
        for group, what in ((1, "frame"), (2, "score"), (4, "number of particles sent up")):
            if int(now.group(group)) < int(was.group(group)):
                raise DemoFailed(f"the {what} went back from {was.group(group)} to {now.group(group)}")


def edit(source: Path) -> None:
    text = source.read_text()
    for old, new in EDITS:
        if text.count(old) != 1:
            raise DemoFailed(f"{source} has {old!r} {text.count(old)} times, not once")
        text = text.replace(old, new)
        print(f"  - {old}\n  + {new}")
    source.write_text(text)


def command(project: Path, env: dict[str, str], shown: str, targets: list[str]) -> None:
    print(f"  $ {shown}", flush=True)
    done = subprocess.run([*SCONS, *targets], cwd=project, env=env, stdin=subprocess.DEVNULL, timeout=BUILD_S,
                          check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in done.stdout.splitlines():
        print(f"  {line if len(line) <= SHOWN else line[:SHOWN] + ' …'}")
    if done.returncode:
        raise DemoFailed(f"{shown} ended with {done.returncode}")


def say(what: str) -> None:
    print(f"\n{what}", flush=True)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
