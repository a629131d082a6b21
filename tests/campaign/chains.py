"""Chains of random edits on one running program, each compared with the reference model.

One chain: generate a program, build it, start it, then edit, compile what changed, patch the process, talk to it, again and
again. The same seed and toolchain give the same chain.
"""
from __future__ import annotations

import random
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import emit
from builds import Builder, BuildFailed, Toolchain
from edits import KINDS, Editor, Kind
from machine import Machine
from patcher import AGENT_REFUSES, NotLive, Patcher
from program import Program, generate

from hotreload_tool import vanished
from hotreload_tool.errors import HotreloadError, Refused
from hotreload_tool.request import ImageRequest, LinkRequest, ObjectRequest
from livetools import LiveError
from livetools import Program as Process

APPLIED, NOTHING, REFUSED = "applied", "nothing changed", "refused"
WRONG, TOOL_ERROR, UNEXPECTED, NEEDLESS = "WRONG", "tool error", "refused without need", "applied without need"
INVALID = "not valid"                        # the generator made something that does not compile
BAD = (WRONG, TOOL_ERROR, UNEXPECTED, NEEDLESS)
# clang before 18 takes static variables out of the object, or makes them smaller, when nothing writes to them any more; an
# edit that brings such a variable back, or drops it, is refused.
_CLANG = {"variable-folded", "data-size", "data-align", "data-type", "tls-new", "tls-changed"}
_COMMANDS = 10                               # to the process after each edit
_UNDO = Kind("edit taken back", lambda e: True, frozenset().union(*(kind.refusals for kind in KINDS)))


@dataclass(frozen=True)
class Outcome:
    edit: str
    verdict: str
    detail: str = ""         # codes of refusals, or what went wrong
    number: int = 0          # of the edit in its chain
    seed: int = 0
    chain: Toolchain = field(default_factory=Toolchain)

    def __str__(self) -> str:
        return f"{self.verdict}: edit {self.number} ({self.edit}) of seed {self.seed}, {self.chain}: {self.detail}"


class Wrong(Exception):
    """The process does not do what the model says."""


# ---- builds ------------------------------------------------------------------------------------------------------


class Project:
    """The sources and objects of one program in a directory; compiles what changed."""

    def __init__(self, folder: Path, runtime: Path, chain: Toolchain) -> None:
        self.folder, self.chain = folder, chain
        self.builder = Builder(runtime, chain, extra=["-w", *(["-std=c++17"] if chain.language == "c++" else [])])
        self.c_builder = Builder(runtime, _c_chain(chain), extra=["-w"])
        self.host_builder = Builder(runtime, Toolchain(_c_chain(chain).command, linker=chain.linker), extra=["-w"])
        self._texts: dict[str, str] = {}

    @property
    def image(self) -> Path:
        return self.folder / ("libprogram.so" if self.chain.kind == "shared" else "program")

    def write(self, p: Program) -> None:
        """Compile what differs from what was compiled last. Raises BuildFailed, Refused."""
        files = emit.sources(p)
        if self.chain.kind != "shared":
            files["main.c"] = emit.MAIN_C
        for name, text in files.items():
            if self._texts.get(name) != text:
                self._texts.pop(name, None)
                (self.folder / name).write_text(text)
                builder = self.c_builder if name.endswith(".c") else self.builder
                builder.instrumented_object(self.folder / name, self.object(name), self.object(name).name)
                self._texts[name] = text
        for name in self._texts.keys() - files.keys():
            del self._texts[name]

    def object(self, name: str) -> Path:
        return self.folder / f"{Path(name).stem}.o"

    def objects(self) -> list[Path]:
        return [self.object(name) for name in sorted(self._texts)]

    def link(self) -> Path:
        """The program to start."""
        if self.chain.kind != "shared":
            return self.builder.link_instrumented(self.objects(), self.image, ["-lm"])
        self.builder.link_instrumented(self.objects(), self.image, ["-lm"])
        main = self.folder / "main.c"
        main.write_text(emit.MAIN_C)
        host = self.host_builder.instrumented_object(main, self.folder / "main.o")
        return self.host_builder.link_instrumented([host], self.folder / "host",
                                                   [f"-L{self.folder}", "-lprogram", f"-Wl,-rpath,{self.folder}"])

    def request(self) -> ImageRequest:
        command = [self.chain.command]
        link = LinkRequest(driver=command, cc=[_c_chain(self.chain).command], cxx=command, libs=["-lm"], libpath=[], flags=[],
                           sources=[])
        objects = [ObjectRequest(o.name, str(o), False) for o in self.objects()]
        return ImageRequest("program", str(self.image), "shared" if self.chain.kind == "shared" else "program", objects, link)


def _c_chain(chain: Toolchain) -> Toolchain:
    command = {"g++": "gcc", "clang++": "clang"}.get(chain.command, chain.command)
    return Toolchain(command, chain.level, chain.kind, chain.linker, chain.flags, chain.debug)


# ---- processes -----------------------------------------------------------------------------------------------------


class Session:
    """One process and the machines that it may be."""

    def __init__(self, process: Process, program: Program) -> None:
        self.process = process
        self.machines = [Machine(program)]

    def converse(self, rng: random.Random, count: int = _COMMANDS) -> None:
        """Raises Wrong unless one of the machines gives all the answers of the process; LiveError if it ends or hangs."""
        entries = len(self.machines[0].program.entries)
        lines = ["d", "e"]
        lines += [f"{rng.choice('cct')} {rng.randrange(entries)} {rng.randrange(1 << 32)} {rng.randrange(1 << 32)}"
                  for _ in range(count)]
        lines += ["d", "e"]
        self.process.send("".join(line + "\n" for line in lines))
        answers = self.process.expect(rf"(?:[^\n]*\n){{{len(lines)}}}")[0].splitlines()
        for line, answer in zip(lines, answers):
            said = [(machine, machine.command(line)) for machine in self.machines]
            self.machines = [machine for machine, expected in said if expected == answer.strip()]
            if not self.machines:
                raise Wrong(f"to {line!r} it said {_differing(answer.strip(), [expected for _, expected in said])}")

    def adopt(self, program: Program, left_out: frozenset[tuple[str, str]] = frozenset()) -> None:
        self.machines = [new for machine in self.machines for new in machine.adopt(program, left_out)]


def _differing(answer: str, expected: list[str]) -> str:
    first = expected[0]
    if " " not in answer:
        return f"{answer}, not {' or '.join(expected[:4])}"
    places = [f"number {i} is {a}, not {b}" for i, (a, b) in enumerate(zip(answer.split(), first.split())) if a != b]
    return ", ".join(places[:6]) or f"{len(answer.split())} numbers, not {len(first.split())}"


# ---- a chain -------------------------------------------------------------------------------------------------------


class Chain:
    """A program under edit. `attempt` makes one edit go live, or says why not."""

    def __init__(self, folder: Path, runtime: Path, chain: Toolchain, program: Program, stack: ExitStack) -> None:
        self.project = Project(folder, runtime, chain)
        self.project.write(program)
        self._binary = self.project.link()
        self._patcher = Patcher(self.project.image, stack)
        self._original = program
        self._applied: list[Program] = []
        self.session = Session(self._patcher.start(self._binary), program)

    def attempt(self, program: Program) -> tuple[str, str]:
        """(APPLIED | NOTHING | REFUSED, codes and reasons). Raises Wrong, NotLive, LiveError, BuildFailed, HotreloadError."""
        self.project.write(program)
        try:
            brought = self._patcher.patch(self.session.process.pid, self.project.request())
        except Refused as e:
            return REFUSED, ",".join(sorted({r.code for r in e.refusals})) + " " + "; ".join(str(r) for r in e.refusals)[:600]
        if brought is not None:
            self._applied.append(program)
        self.session.adopt(program, self._left_out(brought or []))
        return (NOTHING if brought is None else APPLIED), ""

    def _left_out(self, brought: Sequence[str]) -> frozenset[tuple[str, str]]:
        """(function, variable) that this patch brought, perhaps because the compiler had left them out before: clang before 18
        drops static variables that are written and never read, so that their values are not there when an edit reads them."""
        if "clang" not in self.project.chain.command:
            return frozenset()
        return frozenset(vanished.source_name(name.partition("~")[0]) for name in brought)

    def check_latecomer(self, rng: random.Random) -> None:
        """A process of the same build that starts now takes all generations, and is then as good."""
        late = Session(self._patcher.start(self._binary), self._original)
        for program, made in zip(self._applied, self._patcher.store.chain(self._patcher.build_id)):
            late.adopt(program, self._left_out(self._patcher.apply(late.process.pid, made)))
        late.converse(rng)


def run_chain(seed: int, chain: Toolchain, edits: int, runtime: Path, keep: Path | None = None,
              only: str | None = None) -> Iterator[Outcome]:
    """The outcomes of one chain; it ends at the first bad one. `keep`: where the sources of each step are kept.
    `only`: the kind of the edits."""
    rng = random.Random(f"{seed} {chain.language}")
    number, kind_name = 0, "start"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chain-")))
        try:
            program = generate(rng, chain.language)
            _keep(keep, 0, "start", program)
            running = Chain(folder, runtime, chain, program, stack)
            running.session.converse(rng)
            history = [program]
            for number in range(1, edits + 1):
                kind, new = _edit(rng, history, only)
                kind_name = kind.name
                _keep(keep, number, kind.name, new)
                verdict, detail = running.attempt(new)
                if verdict == REFUSED:
                    running.project.write(history[-1])
                else:
                    history.append(new)
                running.session.converse(rng)
                yield Outcome(kind.name, _judge(kind, verdict, detail, new, chain), detail, number, seed, chain)
            kind_name = "late start"
            running.check_latecomer(rng)
        except BuildFailed as e:
            yield Outcome(kind_name, INVALID, str(e)[-600:], number, seed, chain)
        except (Wrong, NotLive, LiveError) as e:
            yield Outcome(kind_name, WRONG, str(e)[:600], number, seed, chain)
        except HotreloadError as e:
            yield Outcome(kind_name, TOOL_ERROR, f"{type(e).__name__}: {e}"[:1500], number, seed, chain)
        except Exception as e:      # whatever it is: the campaign goes on with the next chain and reports it
            trace = "".join(traceback.format_exception(e)[-4:])
            yield Outcome(kind_name, TOOL_ERROR, trace[-1500:], number, seed, chain)


def _edit(rng: random.Random, history: Sequence[Program], only: str | None) -> tuple[Kind, Program]:
    if len(history) > 2 and rng.random() < 0.05 and not only:
        old = history[-rng.randrange(2, min(4, len(history)) + 1)].copy()
        old.next_id = history[-1].next_id       # what is new after this is something else than what was undone
        return _UNDO, old
    while True:
        kind = rng.choice(KINDS)
        if kind.language not in ("", history[-1].language) or only not in (None, kind.name):
            continue
        new = history[-1].copy()
        if kind.make(Editor(rng, new)):
            return kind, new


def _judge(kind: Kind, verdict: str, detail: str, new: Program, chain: Toolchain) -> str:
    # gold puts constants between code, where they cannot be changed without making code writable.
    allowed = kind.refusals | ({AGENT_REFUSES} if chain.linker == "gold" else set())
    allowed |= _CLANG if "clang" in chain.command else set()
    if verdict == REFUSED and not set(detail.split(" ")[0].split(",")) <= allowed:
        return UNEXPECTED
    lines = any(n.kind == "line" for f in new.functions.values() for n in f.body.walk())
    if verdict == APPLIED and kind.nothing and not lines:
        return NEEDLESS
    return verdict


def _keep(folder: Path | None, number: int, name: str, program: Program) -> None:
    if folder is None:
        return
    step = folder / f"{number:03}-{name.replace(' ', '-')}"
    shutil.rmtree(step, ignore_errors=True)
    step.mkdir(parents=True)
    for file, text in {**emit.sources(program), "main.c": emit.MAIN_C}.items():
        (step / file).write_text(text)
