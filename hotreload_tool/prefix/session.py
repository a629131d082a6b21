"""The prefixes of one session: made behind the user's back, used for the next edit, given up where they lie."""
from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..objectmap import ObjectMap
from . import agreement, inputs, screen, text
from .text import Unsuitable
from .unit import Command, Room, Unit, unit_of

MOST_BYTES = 1 << 30         # of all compiled prefixes; gcc's are about 60 MB where the C++ library is included at large
LOW = 10                     # nice value of what nobody waits for; on a busy machine 19 would never come to an end
_FAILED = 1


class Attempt(NamedTuple):
    """A compile with a prefix."""
    command: Command
    source: str              # digest of the source that was compiled
    output: str
    succeeded: bool          # False: the compiler had something against it; the plain compile says what


class Verdict(NamedTuple):
    """What the plain compile says of an attempt."""
    agrees: bool
    overtaken: bool          # the source was saved again meanwhile, so that there is nothing to compare
    reason: str              # why it does not agree


@dataclass
class _Prefix:
    top: bytes
    room: Room
    inputs: inputs.Inputs
    size: int                # bytes
    is_proven: bool = False  # an object made with it was what the plain compile made


@dataclass
class _State:
    """All of a session, by command. Least recently used prefixes come first."""
    ready: dict[Command, _Prefix] = field(default_factory=dict)
    given_up: dict[Command, str] = field(default_factory=dict)
    why: dict[Command, str] = field(default_factory=dict)


class Prefixes:
    """May be used by several threads; compiles of one command do not run at the same time."""

    def __init__(self, folder: str, most_bytes: int = MOST_BYTES, low: int = LOW) -> None:
        """`folder`: where files of this session may lie, in a new folder. `low`: nice value of what runs in the background.
        Raises OSError."""
        os.makedirs(folder, exist_ok=True)
        _remove_abandoned(folder)
        self.folder = tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=os.path.abspath(folder))
        self._proven = os.path.join(self.folder, "proven")     # an empty file for each command that has proven itself
        os.mkdir(self._proven)
        self._most_bytes, self._low = most_bytes, low
        self._state = _State()
        self._lock = threading.RLock()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False

    def close(self) -> None:
        """End what still runs, and remove all files."""
        with self._lock:
            self._is_closed = True
            for child in self._children:
                _kill(child)
        shutil.rmtree(self.folder, ignore_errors=True)

    def why(self, command: Command) -> str:
        """Why the last call for this command came to nothing."""
        return self._state.why.get(command, "")

    def is_ready(self, command: Command) -> bool:
        """Whether there is a proven prefix, which may turn out to be out of date."""
        prefix = self._state.ready.get(command)
        return prefix is not None and prefix.is_proven

    def is_possible(self, command: Command) -> bool:
        """Whether it is worth while to make one."""
        try:
            self._parts(command)
        except (Unsuitable, OSError) as e:
            self._state.why[command] = str(e)
            return False
        return True

    def source_digest(self, command: Command) -> str:
        """Of the source as it is now: what `Attempt.source` would be. Raises OSError, Unsuitable."""
        with open(unit_of(command).path, "rb") as file:
            return _digest(file.read())

    # ---- compile -----------------------------------------------------------------------------------

    def compile(self, command: Command, output: str, trial: bool = False) -> Attempt | None:
        """Compile as `command` would, but with a prefix and to `output`. None: there is none that can be used; `why` tells.

        `trial`: at low priority, also with a prefix that is not proven yet: nobody may be given what comes of it.
        """
        try:
            unit, source, parts = self._parts(command)
            prefix = self._usable(command, parts.top)
            if not prefix.is_proven and not trial:
                raise Unsuitable("its first object was not compared yet")
            with open(prefix.room.body, "wb") as file:
                file.write(parts.body)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(output)
            code = self._run(unit, prefix.room.words_for_body(os.path.abspath(output)), low=trial)
        except (Unsuitable, OSError) as e:
            self._state.why[command] = str(e)
            return None
        return Attempt(command, _digest(source), output, code == 0)

    def _parts(self, command: Command) -> tuple[Unit, bytes, text.Parts]:
        if command in self._state.given_up:
            raise Unsuitable(self._state.given_up[command])
        unit = unit_of(command)
        with open(unit.path, "rb") as file:
            source = file.read()
        return unit, source, text.split(source, unit.name)

    def _usable(self, command: Command, top: bytes) -> _Prefix:
        with self._lock:
            prefix = self._state.ready.pop(command, None)
            if prefix is None:
                raise Unsuitable("its includes were not compiled yet")
            changed = "the list of its includes" if prefix.top != top else prefix.inputs.changed()
            if changed:
                shutil.rmtree(prefix.room.folder, ignore_errors=True)
                raise Unsuitable(f"{changed} changed")
            self._state.ready[command] = prefix         # behind all others: used last
            return prefix

    # ---- prepare -----------------------------------------------------------------------------------

    def prepare(self, command: Command) -> bool:
        """Compile the includes at the top, at low priority, unless that is done. False: there is no prefix; `why` tells."""
        try:
            unit, _, parts = self._parts(command)
            with contextlib.suppress(Unsuitable):
                return bool(self._usable(command, parts.top))
            self._make(unit, parts.top)
        except (Unsuitable, OSError, ValueError) as e:
            self._state.why[command] = str(e)
            return False
        return True

    def _make(self, unit: Unit, top: bytes) -> None:
        room = Room(os.path.join(self.folder, _name(unit.command)), unit)
        shutil.rmtree(room.folder, ignore_errors=True)
        try:
            prefix = self._compiled(unit, room, top)
        except BaseException:
            shutil.rmtree(room.folder, ignore_errors=True)
            raise
        with self._lock:
            self._state.ready[unit.command] = prefix
            self._make_room()

    def _compiled(self, unit: Unit, room: Room, top: bytes) -> _Prefix:
        """What stays in the way of a prefix for as long as nobody edits a header is not tried again."""
        room.make()
        began = time.time_ns()
        with open(room.top, "wb") as file:
            file.write(top)
        if self._run(unit, room.words_for_top(), low=True):
            self.give_up(unit.command, "its includes do not compile by themselves")
            raise Unsuitable("its includes do not compile by themselves")
        files, places = _read_for(unit, room)
        made_of = inputs.Inputs(files, inputs.searched(files, places), began)
        if changed := made_of.changed_meanwhile():
            raise Unsuitable(f"{changed} was written while it was read")
        if left := next((f"{path} has {what}" for path in files if (what := screen.left_open(path))), None):
            self.give_up(unit.command, left)
            raise Unsuitable(left)
        made_of.add(room.compiled)
        if not unit.is_clang:
            os.unlink(room.top)
        return _Prefix(top, room, made_of, os.path.getsize(room.compiled))

    def _make_room(self) -> None:
        """Remove what was not used for the longest time, while all together is too large."""
        ready = self._state.ready
        while len(ready) > 1 and sum(prefix.size for prefix in ready.values()) > self._most_bytes:
            oldest = next(iter(ready))
            shutil.rmtree(ready.pop(oldest).room.folder, ignore_errors=True)

    # ---- compare -----------------------------------------------------------------------------------

    def judge(self, attempt: Attempt, quick: ObjectMap | None, plain: ObjectMap | None) -> Verdict:
        """Compare with what the plain compile made (None: it failed). Where they differ, this command has no prefix any more;
        where they are equal, it is proven.

        `quick`: the map of the attempt's object, made with the same name and options; None if it did not succeed.
        """
        if not self._is_current(attempt):          # the plain compile may have read what was saved since
            return Verdict(False, True, "")
        if plain is None or quick is None:
            agrees = plain is None and not attempt.succeeded
            reason = "" if agrees else "only the plain compile fails" if plain is None else "only the plain compile succeeds"
        else:
            reason = "; ".join(agreement.differences(quick, plain))
        if reason:
            self.give_up(attempt.command, reason)
        elif attempt.succeeded and attempt.command in self._state.ready:
            self._state.ready[attempt.command].is_proven = True
            with open(os.path.join(self._proven, _name(attempt.command)), "wb"):
                pass
        return Verdict(not reason, False, reason)

    def _is_current(self, attempt: Attempt) -> bool:
        prefix = self._state.ready.get(attempt.command)
        if prefix is not None and prefix.inputs.changed():
            return False
        try:
            return self.source_digest(attempt.command) == attempt.source
        except (OSError, Unsuitable):
            return False

    def give_up(self, command: Command, reason: str) -> None:
        """Compile this one plainly for the rest of the session."""
        with self._lock:
            self._state.given_up[command] = reason
            self._state.why[command] = reason
            prefix = self._state.ready.pop(command, None)
        if prefix is not None:
            shutil.rmtree(prefix.room.folder, ignore_errors=True)

    # ---- processes ---------------------------------------------------------------------------------

    def _run(self, unit: Unit, argv: Sequence[str], low: bool = False) -> int:
        """Its exit code. What the compiler says is not shown: the plain compile says the same."""
        with self._lock:
            if self._is_closed:
                return _FAILED
            child = subprocess.Popen(argv, cwd=unit.command.cwd, env=dict(unit.command.env), stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=low)
            self._children.add(child)
        try:
            if low:
                _lower(child.pid, self._low)
            return child.wait()
        finally:
            with self._lock:
                self._children.discard(child)
                _kill(child)


def _remove_abandoned(folder: str) -> None:
    """The files of sessions that were killed."""
    for name in os.listdir(folder):
        pid = name.partition("-")[0]
        if pid.isdigit() and (int(pid) == os.getpid() or not os.path.exists(f"/proc/{pid}")):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def _lower(pid: int, nice: int) -> None:
    """Let a process that leads a session, and all that it starts, run when others need not."""
    with contextlib.suppress(OSError):       # it may be gone; or the kernel does not schedule by sessions
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        with open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as file:
            file.write(str(nice))


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a compiler's driver, and what it started where that is a session of its own."""
    if child.returncode is not None:
        return
    with contextlib.suppress(OSError):
        if os.getsid(child.pid) == child.pid:
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.terminate()


def _read_for(unit: Unit, room: Room) -> tuple[list[str], list[str]]:
    """The files that a prefix was made of, and the folders that were searched for them, absolute."""
    cwd = unit.command.cwd
    own = os.path.dirname(os.path.abspath(unit.path))
    within = room.here + os.sep
    read = [path for path in inputs.read_dependencies(room.dependencies, cwd) if path != room.top]
    files = [os.path.join(own, path.removeprefix(within)) if path.startswith(within) else path for path in read]
    return files, [own, *(os.path.join(cwd, folder) for folder in unit.folders)]


def _name(command: Command) -> str:
    return _digest(repr(command).encode(errors="surrogateescape"))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
