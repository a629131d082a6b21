"""`hotpatch verify --live -- COMMAND…`: a bundle goes into the program, out again and in again while the program's own test or
load command runs it. The command must come to the same verdict, and the memory must hold what the bundle says."""
from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import abi, process
from ..errors import HotreloadError
from . import attest, container, memory
from .verdict import Verdict

CHECKS = ("live-verdict", "live-read-back")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.5      # seconds between two moments: many early ones, then fewer
_ANSWER_SECONDS = 20.0                         # bound on one apply or revert


@dataclass
class _Run:
    """What happened while the command ran."""
    applied: int = 0
    given: int = 0                             # the bundle was handed over; a process that then dies may not answer any more
    reverted: int = 0
    waited: int = 0                            # somebody was in the way until the deadline
    problems: list[str] = field(default_factory=list)
    blocked: str = ""


@dataclass(frozen=True)
class _Step:
    """One generation: build-id -> file with its payload."""
    generation: int
    payloads: dict[str, Path]
    functions: dict[str, int]                  # build-id -> how many it changes


def check(verdict: Verdict, bundles: Sequence[Path], images: Sequence[Path], command: Sequence[str], seconds: float) -> None:
    """Run `command` once as it is and once under patches; `bundles` are all generations, oldest first, the last one the one that
    is verified. Raises HotreloadError if the command cannot be run."""
    shown = " ".join(command)
    with tempfile.TemporaryDirectory(prefix="hr-") as folder:
        environment = {**os.environ, "HOTRELOAD_RUNTIME_DIR": folder}
        steps = [_step(path, number, Path(folder)) for number, path in enumerate(bundles)]
        plain = _wait(_start(command, environment), seconds)
        if plain is None:
            _cannot(verdict, shown, f"the command does not end within {seconds:g} s by itself; give it less to do")
            return
        run = _Run()
        patched = _under_patches(command, environment, steps, attest.known(images, bundles), seconds, run, Path(folder))
    if not run.applied and not (run.given and patched != plain):
        why = f"the bundle never went in: {run.blocked}" if run.blocked else "the command started no process that runs the image"
        if run.problems:
            verdict.found("live-read-back", shown, run.problems)
        _cannot(verdict, shown, why, done=bool(run.problems))
        return
    verdict.found("live-verdict", shown, [] if patched == plain else [
        f"it {_ended(patched, seconds)} with the patch applied and reverted under it, and {_ended(plain, seconds)} without"],
        [f"{shown}: applied {run.applied} times, reverted {run.reverted} times, {run.waited} times somebody was in the way"])
    verdict.found("live-read-back", shown, run.problems)


def _cannot(verdict: Verdict, shown: str, why: str, done: bool = False) -> None:
    for name in CHECKS[:1] if done else CHECKS:
        verdict.cannot(name, shown, why)


def _ended(code: int | None, seconds: float) -> str:
    if code is None:
        return f"did not end within {seconds:g} s"
    return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _step(path: Path, number: int, folder: Path) -> _Step:
    contents = container.check(path.read_bytes(), Verdict(str(path)))
    if contents is None:
        raise HotreloadError(f"{path}: the bundle is damaged, and is not brought into a process")
    payloads = {}
    for i, entry in enumerate(contents.images):
        payloads[entry["build_id"]] = folder / f"{number}-{i}.so"
        payloads[entry["build_id"]].write_bytes(contents.payload(i))
    return _Step(contents.images[0]["generation"], payloads, {e["build_id"]: len(e["changed"]) for e in contents.images})


def _start(command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=2)     # standard output is ours
    except OSError as e:
        raise HotreloadError(f"{command[0]}: cannot be run: {e.strerror}") from e


def _wait(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code; None, and the command is killed, if it does not end in time."""
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return None


# ---- while it runs ----------------------------------------------------------------------------------------------


def _under_patches(command: Sequence[str], environment: dict[str, str], steps: Sequence[_Step], known: attest.Known,
                   seconds: float, run: _Run, sockets: Path) -> int | None:
    child = _start(command, environment)
    deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
    while time.monotonic() < deadline:
        try:
            return child.wait(pause)           # the moment: whatever the program does by then
        except subprocess.TimeoutExpired:
            pause = min(pause * 1.3, _LONGEST_PAUSE)
        for agent in process.find([sockets]):
            with _lost(run, agent.pid), _directory(sockets):
                _turn(agent.pid, steps, known, run)
    return _wait(child, 0.0)


@contextlib.contextmanager
def _directory(sockets: Path) -> Iterator[None]:
    """Agents of the command are looked for where it was told to have them."""
    before = os.environ.get("HOTRELOAD_RUNTIME_DIR")
    os.environ["HOTRELOAD_RUNTIME_DIR"] = str(sockets)
    try:
        yield
    finally:
        if before is None:
            del os.environ["HOTRELOAD_RUNTIME_DIR"]
        else:
            os.environ["HOTRELOAD_RUNTIME_DIR"] = before


@contextlib.contextmanager
def _lost(run: _Run, pid: int) -> Iterator[None]:
    """A process that ends meanwhile is no finding. One that refuses is; one in which somebody is in the way is asked again."""
    try:
        yield
    except HotreloadError as e:
        if getattr(e, "code", None) is abi.Code["DEADLINE"] or getattr(e, "exit_code", 1) == 4:
            run.waited, run.blocked = run.waited + 1, str(e)
        elif process.exists(pid) and not isinstance(e, (process.NoAgent, memory.NotReadable)):
            run.problems.append(f"process {pid}: {e}")


def _turn(pid: int, steps: Sequence[_Step], known: attest.Known, run: _Run) -> None:
    """One step forward, or back from the last generation to the one before."""
    status = process.status(pid, _ANSWER_SECONDS)
    images = {i.build_id: i.generation for i in status.images if i.build_id in steps[-1].payloads}
    if not images:
        return
    generation = min(images.values())
    if generation < steps[-1].generation:
        step = next(s for s in steps if s.generation == generation + 1)
        payloads = [path for build_id, path in step.payloads.items() if build_id in images]
        run.given += step is steps[-1]
        answer = process.apply(pid, payloads, when="quiescent", timeout=_ANSWER_SECONDS)
        run.problems += [f"process {pid}: {i.functions_live} of {step.functions[i.build_id]} changed functions are live"
                         for i in answer.images if i.functions_live != step.functions[i.build_id]]
        run.applied += step is steps[-1]
        generation += 1
    else:
        generation -= 1
        for build_id in images:
            process.revert(pid, build_id, generation, when="quiescent", timeout=_ANSWER_SECONDS)
        run.reverted += 1
    _read_back(pid, images, generation, known, run)


def _is_over(pid: int) -> bool:
    """Whether the process ended, also if nobody has asked for its exit code yet: then it has no memory."""
    try:
        return not Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:
        return True


def _read_back(pid: int, images: dict[str, int], generation: int, known: attest.Known, run: _Run) -> None:
    with memory.Memory(pid) as read:
        for loaded in read.images():
            if loaded.build_id in images and loaded.build_id in known.images:
                found = attest.attest(read, loaded, known)
                if _is_over(pid):
                    return                     # what was read may be that of an ending process
                run.problems += [f"process {pid}, generation {generation}: {p}" for p in found.problems]
                if found.generation != generation and not found.unknown:
                    run.problems.append(f"process {pid}: generation {generation} should be live, its slots are those of "
                                        f"generation {found.generation}")
