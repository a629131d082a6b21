"""Security patches that Debian carries, replayed on running programs.

For each patch of a source package: the base is the package with all patches before it in the series, built by its own build
with `hotpatch cc`, and running under load. The edit is the patch, the fresh build is the same tree built again, and the
bundle is what `hotpatch bundle` makes of the two. Three processes answer the same questions: the base as it was, the
patched one, and one of the fresh build. What packages there are, how they are built, run and asked, is data:
`patches/packages.json`, described in `Package`.
"""
from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aptsource

from livetools import (
    BUILD_SECONDS,
    DEADLINE,
    DONE,
    HOTPATCH,
    LiveError,
    Program,
    Workspace,
    clean_environment,
    run,
    runtime_directory,
)

HERE = Path(__file__).resolve().parent / "patches"
_ANSWER_END = "."             # a line of its own ends an answer of a program that is asked on its standard input
_ASK_SECONDS = 20.0
_APPLY_SECONDS = "20"
_MOMENTS = ("quiescent", "now")     # the second where a changed function never leaves the stack (docs/consistency.md)
_DIED, _SILENT = "the process died", "no answer"


@dataclass(frozen=True)
class Package:
    """An entry of packages.json. Commands are words by a shell's rules of quoting, but run by none. They know `{cc}` and `{cxx}`
    (the launched compilers), `{launcher}` (the same for CMake), `{tree}`, `{stage}`, `{data}` (where packages.json is),
    `{python}`, `{run}` (a directory of one process), `{port}` (free when it was chosen)."""
    name: str
    about: str                                # language and kind, for the table
    security: str                             # regular expression: which patches of the series are replayed
    build: list[str]                          # in {tree}; again after each patch
    keep: dict[str, str]                      # name in {stage} -> file of the tree: what a process needs of a build
    image: str                                # which of these is patched
    start: str                                # the program, in {stage}
    ready: str                                # regular expression in its output
    load: list[str]                           # questions asked all the time while the patch goes in
    questions: list[str]                      # asked of all three processes
    configure: list[str] = field(default_factory=list)      # once
    state: str = ".hotreload"                               # where the build keeps its baselines, in {tree}
    skip: list[str] = field(default_factory=list)           # patches of the series that the build here does not want
    stage: list[str] = field(default_factory=list)          # after what is kept is there
    files: dict[str, str] = field(default_factory=dict)     # files of {run}: name -> text
    client: str = ""                          # asks a daemon: the question is its last word, the answer its output
    needs: list[str] = field(default_factory=list)          # commands beside make and a compiler
    small: list[str] = field(default_factory=list)          # patches that are replayed in the tests' small size
    unverified: dict[str, str] = field(default_factory=dict)       # patch -> why `hotpatch verify` cannot show that all is there
    exposing: dict[str, list[str]] = field(default_factory=dict)   # patch -> questions that the base answers otherwise


def packages() -> dict[str, Package]:
    document = json.loads((HERE / "packages.json").read_text())
    return {name: Package(name, **entry) for name, entry in document.items()}


@dataclass
class Outcome:
    """What became of one patch."""
    package: str
    patch: str
    functions: int = 0            # changed or new
    applied: bool = False
    when: str = ""                # the first of _MOMENTS that it could be applied at
    reason: str = ""              # why not; "" where it was applied
    verified: str = ""            # what `hotpatch verify --against` said: "yes", or why not
    equal: bool = False           # the patched process answers as the fresh build
    exposed: bool = False         # the base answers otherwise
    pause_us: float = 0.0
    threads: int = 0


# ---- trees and builds --------------------------------------------------------------------------------------------


class Replay:
    """One package in a directory of its own. Raises aptsource.Unavailable, LiveError."""

    def __init__(self, package: Package, folder: Path) -> None:
        self.package = package
        self.folder = folder
        self.tree = folder / "tree"
        self._stages = 0
        self._command = folder / "hotpatch"      # one word, as it is called once installed: libtool takes -m for a compiler's
        self._command.write_text(f'#!/bin/sh\nexec {shlex.join(HOTPATCH)} "$@"\n')
        self._command.chmod(0o755)
        unpack(package.name, self.tree)

    def outcomes(self, wanted: Sequence[str] | None = None) -> Iterator[Outcome]:
        """One for each security patch, in the order of the series; of those in `wanted`, if that is given."""
        waiting = [p for p in series(self.tree) if p not in self.package.skip]
        chosen = [p for p in waiting if re.search(self.package.security, p) and (wanted is None or p in wanted)]
        base: Path | None = None          # the build of the tree as it is
        for patch in waiting[:waiting.index(chosen[-1]) + 1] if chosen else []:
            if patch not in chosen:
                apply_patch(self.tree, patch)
                base = None
                continue
            base = base or self.built()
            apply_patch(self.tree, patch)
            fresh = self.built()
            yield self.replayed(patch, base, fresh)
            base = fresh

    def built(self) -> Path:
        """Build the tree; a new stage with what processes need of it."""
        self._commands([*([] if self._stages else self.package.configure), *self.package.build], self.tree)
        self._stages += 1
        stage = self.folder / f"stage-{self._stages}"
        stage.mkdir()
        for name, source in self.package.keep.items():
            shutil.copy2(self.tree / source, stage / name)
        self._commands(self.package.stage, self.tree, stage)
        return stage

    def _commands(self, commands: Sequence[str], folder: Path, stage: Path | None = None) -> None:
        for command in commands:
            run(self.words(command, stage=stage or folder), cwd=folder, env=environment(), timeout=4 * BUILD_SECONDS, code=0)

    def words(self, text: str, **places: object) -> list[str]:
        launcher = [str(self._command), "cc", "--"]
        known = {"cc": shlex.join([*launcher, "gcc"]), "cxx": shlex.join([*launcher, "g++"]), "launcher": ";".join(launcher),
                 "tree": self.tree, "data": HERE, "python": sys.executable, **places}
        return [re.sub(r"\{(\w+)\}", lambda m: str(known.get(m[1], m[0])), word) for word in shlex.split(text)]

    # ---- one patch --------------------------------------------------------------------------------

    def replayed(self, patch: str, base: Path, fresh: Path) -> Outcome:
        outcome = Outcome(self.package.name, patch)
        questions = [*self.package.questions, *self.package.exposing.get(patch, [])]
        with runtime_directory() as sockets:
            tool = Workspace(self.folder, environment(HOTRELOAD_RUNTIME_DIR=str(sockets),
                                                      HOTRELOAD_DIR=str(self.tree / self.package.state)))
            bundle = self.folder / f"{self._stages}.hotpatch"
            image = self.package.image
            made = tool.hotpatch("bundle", "--base", base / image, fresh / image, "-o", bundle, "--json", code=None)
            document = made.json()
            if made.code or document["bundle"] is None:
                outcome.reason = reasons(document)
                return outcome
            outcome.functions = len(document["changed"]) + len(document["added"])
            outcome.verified = verified(tool, bundle, base / image, fresh / image)
            self._patched(outcome, tool, bundle, (base, fresh), questions)
        return outcome

    def _patched(self, outcome: Outcome, tool: Workspace, bundle: Path, stages: tuple[Path, Path],
                 questions: Sequence[str]) -> None:
        """Apply under load, then compare with fresh processes of both builds."""
        before, after = (self._answers(stage, tool.env, questions) for stage in stages)
        with Process(self, stages[0], tool.env) as process:
            with under_load(process, self.package.load):
                document = applied(outcome, tool, bundle, process.program.pid)
            if not outcome.applied:
                return
            outcome.pause_us, outcome.threads = float(document["pause_us"]), int(document["threads_stopped"])
            answers = [process.ask(question) for question in questions]
            outcome.reason = ""
            outcome.equal, outcome.exposed = answers == after, before != after
            if not outcome.equal:
                outcome.reason = next(f"answers {a!r} to {q!r}, a fresh build {b!r}" for q, a, b
                                      in zip(questions, answers, after, strict=True) if a != b)

    def _answers(self, stage: Path, env: Mapping[str, str], questions: Sequence[str]) -> list[str]:
        """What a fresh process of a build answers. One that dies of a question has no answers to those after it."""
        with Process(self, stage, env) as process:
            for question in self.package.load:
                process.ask(question)
            return [process.ask(question) for question in questions]


def applied(outcome: Outcome, tool: Workspace, bundle: Path, pid: int) -> Mapping[str, Any]:
    """What `hotpatch apply` said, at the first moment at which the process takes the bundle."""
    for when in _MOMENTS:
        done = tool.hotpatch("apply", bundle, "--pid", str(pid), "--when", when, "--timeout", _APPLY_SECONDS, "--json", code=None)
        document: Mapping[str, Any] = done.json()
        if done.code == DONE:
            if document["functions_live"] != document["functions_changed"]:
                raise LiveError(f"{outcome.patch}: not all that changed is live: {done}")
            outcome.applied, outcome.when = True, when
            return document
        outcome.reason = reasons(document)
        if done.code != DEADLINE:
            break
    return {}


def environment(**extra: str) -> dict[str, str]:
    return clean_environment(SOURCE_DATE_EPOCH="1700000000", **extra)     # __DATE__ and __TIME__ are no edits


def unpack(name: str, tree: Path) -> None:
    """The upstream source with Debian's part beside it, no patch applied."""
    (description,) = aptsource.package(name).glob("*.dsc")
    run(["dpkg-source", "--no-check", "--skip-patches", "-x", description, tree], code=0)


def series(tree: Path) -> list[str]:
    lines = (tree / "debian/patches/series").read_text().splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def apply_patch(tree: Path, name: str) -> None:
    run(["patch", "-p1", "-f", "--no-backup-if-mismatch", "-i", tree / "debian/patches" / name], cwd=tree, code=0)


def reasons(document: Mapping[str, Any]) -> str:
    """What the tool said against it, short."""
    if document.get("refusals"):
        told = [f"{r['code']}: {r['name'].partition('~')[0]}: {r['reason']}" for r in document["refusals"]]
        return told[0] + (f" (and {len(told) - 1} more)" if len(told) > 1 else "")
    return str(document.get("message") or ("nothing changed in the image" if "bundle" in document else document))


def verified(tool: Workspace, bundle: Path, base: Path, fresh: Path) -> str:
    """Whether image and bundle are the fresh build."""
    done = tool.hotpatch("verify", bundle, "--image", base, "--against", fresh, "--json", code=None)
    return "yes" if done.code == DONE else f"no ({(done.err or done.out).strip().splitlines()[-1]})"


# ---- processes -----------------------------------------------------------------------------------------------------


class Asked(Protocol):
    """What answers questions."""

    def ask(self, question: str) -> str: ...


class Process:
    """A running program of one stage, which answers questions: on its standard input, or through a client."""

    def __init__(self, replay: Replay, stage: Path, env: Mapping[str, str]) -> None:
        self.replay = replay
        self.stage = stage
        self.env = {**env, "LD_LIBRARY_PATH": str(stage)}
        self._lock = threading.Lock()
        self._places = contextlib.ExitStack()
        self._silent = False          # it did not answer in time: it will not answer the next question either

    def __enter__(self) -> Process:
        package = self.replay.package
        folder = self._places.enter_context(runtime_directory())
        self.places: dict[str, object] = {"stage": self.stage, "run": folder, "port": free_port()}
        for name, text in package.files.items():
            (folder / name).write_text(self._filled(text))
        program = Program(self.replay.words(package.start, **self.places), cwd=folder, env=self.env)
        self.program = self._places.enter_context(program)
        self.program.expect(package.ready)
        return self

    def __exit__(self, *about: object) -> None:
        self._places.close()

    def _filled(self, text: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda m: str(self.places.get(m[1], m[0])), text)

    def ask(self, question: str) -> str:
        """The answer; that there is none, or that it died, is one too. Only one question at a time."""
        with self._lock:
            if not self.program.alive or self._silent:
                return _SILENT if self._silent else _DIED
            try:
                answer = self._answer(question)
            except LiveError:
                self._silent = self.program.alive
                return _SILENT if self._silent else _DIED
            return answer if self.program.alive else _DIED

    def _answer(self, question: str) -> str:
        if not self.replay.package.client:
            return self.program.ask(question, rf"^((?:.*\n)*?){re.escape(_ANSWER_END)}\n", timeout=_ASK_SECONDS)[1]
        words = self.replay.words(self.replay.package.client, **self.places)
        return run([*words, question], env=self.env, timeout=_ASK_SECONDS).text


def free_port() -> int:
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def under_load(process: Asked, questions: Sequence[str]) -> Iterator[None]:
    """Ask all the time, from before until after. Raises LiveError if an answer is another than at first."""
    first = [process.ask(question) for question in questions]
    wrong: list[str] = []
    stop, begun = threading.Event(), threading.Event()

    def work() -> None:
        while not stop.is_set() and not wrong:
            for question, expected in zip(questions, first, strict=True):
                answer = process.ask(question)
                if answer != expected:
                    wrong.append(f"{question}: {answer!r}, and {expected!r} before the patch")
            begun.set()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        begun.wait(2 * _ASK_SECONDS)
        yield
    finally:
        stop.set()
        worker.join()
    if wrong or not questions:
        raise LiveError(f"under load: {wrong or 'there is none'}")
