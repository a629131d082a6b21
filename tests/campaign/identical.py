"""Programs that print what they computed, plain and instrumented: does any behave differently?

    python tests/campaign/identical.py --size full --jobs 2 --document docs/campaign.md

Each program is compiled at each level, plain and with the tool, linked with one of the linkers in turn, and run; standard
output and exit code are compared.
"""
from __future__ import annotations

import argparse
import collections
import itertools
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    _TESTS = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(_TESTS.parent), *(str(_TESTS / part) for part in (".", "live", "real", "campaign"))]

import builds
import corpus
import document
from builds import LEVELS, Builder, BuildFailed, Toolchain, available
from corpus import SmallProgram, Unavailable

from hotreload_tool.errors import HotreloadError

_CPU_SECONDS = 3             # of a program under test: what needs more is taken to run for ever
_RUN_SECONDS = 120.0         # a bound for one that waits; machines that run campaigns are busy
_MEMORY = 4 << 30            # bytes of address space for a program under test
_SAVED = 100                 # the document is written again after so many outcomes
_SHOWN = 300                 # characters of an output in a report

SAME, LEFT_OUT, DIFFERENT, TOOL_ERROR = "identical", "left out", "different", "tool error"


@dataclass(frozen=True)
class Trial:
    program: SmallProgram
    chain: Toolchain


@dataclass(frozen=True)
class Outcome:
    trial: Trial
    verdict: str         # SAME | LEFT_OUT | DIFFERENT | TOOL_ERROR
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.verdict}: {self.trial.program.name}, {self.trial.chain}: {self.detail}"


@dataclass(frozen=True)
class Ran:
    """What a program did: exit code (negative: signal; None: it did not end in time) and standard output."""
    code: int | None
    out: bytes

    def __str__(self) -> str:
        return f"exit code {self.code}, {self.out[:_SHOWN]!r}"


# ---- one program -------------------------------------------------------------------------------------------------


def try_program(trial: Trial, shared: Path) -> Outcome:
    """Build and run both ways. `shared` holds the runtime's objects and may be used by several processes."""
    with tempfile.TemporaryDirectory(prefix="identical-") as folder:
        try:
            plain = _build_plain(trial, Path(folder), shared)
        except BuildFailed as e:
            return Outcome(trial, LEFT_OUT, f"does not build: {str(e).splitlines()[-1][:_SHOWN]}")
        expected = _run(plain)
        if expected.code is None:
            return Outcome(trial, LEFT_OUT, "does not end")
        if _run(plain) != expected:
            return Outcome(trial, LEFT_OUT, "does something else each time")
        return _compare(trial, expected, Path(folder), shared)


def _compare(trial: Trial, expected: Ran, folder: Path, shared: Path) -> Outcome:
    builder = _builder(trial, shared)
    try:
        obj = builder.instrumented_object(trial.program.source, folder / "instrumented.o")
        got = _run(builder.link_instrumented([obj], folder / "instrumented"))
    except (BuildFailed, HotreloadError) as e:
        return Outcome(trial, TOOL_ERROR, str(e)[-1000:])
    if got == expected:
        return Outcome(trial, SAME)
    if _run(_build_moved(trial, folder, shared)) != expected:
        return Outcome(trial, LEFT_OUT, "depends on its own addresses")
    flagged = builder.link([builder.flagged_object(trial.program.source, folder / "flagged.o")], folder / "flagged")
    same_flags = _run(flagged)
    blame = "the compiler flags alone make that difference" if same_flags == got else "instrumentation makes it"
    return Outcome(trial, DIFFERENT, f"plain: {expected}; instrumented: {got}; {blame}")


def _builder(trial: Trial, shared: Path) -> Builder:
    return Builder(shared, trial.chain, extra=["-w", *trial.program.flags])


def _build_plain(trial: Trial, folder: Path, shared: Path) -> Path:
    builder = _builder(trial, shared)
    return builder.link([builder.plain_object(trial.program.source, folder / "plain.o")], folder / "plain")


def _build_moved(trial: Trial, folder: Path, shared: Path) -> Path:
    """The plain program with its code and data at other addresses, also by their last bits. A program whose result differs
    there returns what its source leaves undefined: `main` of a C89 program without a `return`, for one."""
    before = folder / "before.s"
    before.write_text('.text\n.skip 4176, 0x90\n.data\n.skip 4176\n.section .rodata\n.skip 4176\n.bss\n.skip 4176\n'
                      '.section .note.GNU-stack,"",@progbits\n')
    builder = _builder(trial, shared)
    return builder.link([builder.plain_object(before, folder / "before.o"), folder / "plain.o"], folder / "moved")


def _limits() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS + 1))


def _run(program: Path) -> Ran:
    """In a directory of its own, so that programs that write files find none of an earlier run."""
    with tempfile.TemporaryDirectory(dir=program.parent) as empty:
        try:
            env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOTRELOAD_RUNTIME_DIR": f"{empty}/run"}
            done = subprocess.run([program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  cwd=empty, timeout=_RUN_SECONDS, preexec_fn=_limits, env=env)
        except subprocess.TimeoutExpired:
            return Ran(None, b"")
        return Ran(None if done.returncode == -signal.SIGXCPU else done.returncode, done.stdout)


# ---- all of them -------------------------------------------------------------------------------------------------


def trials(programs: Iterable[SmallProgram], levels: Sequence[str]) -> Iterator[Trial]:
    """Each program at each of `levels` by gcc, and at two of them by clang; linkers and kinds of program in turn.

    In rounds: each program once, by gcc at one level, then each at another one, and so on. So a campaign that is stopped
    early has tried all programs that it could."""
    compilers, linkers = available(["gcc", "clang"])
    if not compilers or not linkers:
        raise Unavailable("there is no compiler, or no linker")
    turn = itertools.count()
    first, others = compilers[0], compilers[1:]
    half = len(levels) // 2
    rounds = [(first, 0), *((c, 0) for c in others), *((first, i) for i in range(1, half)), *((c, half) for c in others),
              *((first, i) for i in range(max(half, 1), len(levels)))]
    everything = list(programs)
    for command, step in dict.fromkeys(rounds):
        for number, program in enumerate(everything):
            level = levels[(number + step) % len(levels)]
            yield Trial(program, _toolchain(command, level, program.language, linkers, next(turn)))


def _toolchain(command: str, level: str, language: str, linkers: Sequence[str], turn: int) -> Toolchain:
    if language == "c++":
        command = {"gcc": "g++", "clang": "clang++"}[command]
    kind = ("pie", "exec")[turn // len(linkers) % 2]
    varieties: tuple[tuple[str, ...], ...] = ((), (), ("-fcf-protection",), ("-fno-omit-frame-pointer",),
                                              ("-fstack-protector-strong", "-D_FORTIFY_SOURCE=0"))
    return Toolchain(command, level, kind, linkers[turn % len(linkers)], varieties[turn % len(varieties)], debug=turn % 7 != 6)


def run_all(wanted: Iterable[Trial], jobs: int, shared: Path, tell: Callable[[list[Outcome]], None],
            seconds: float = float("inf")) -> list[Outcome]:
    """Outcomes in the order of the trials; `tell` is called with all so far after each. At most `jobs` processes; no new
    trial is begun after `seconds`."""
    found: list[Outcome] = []
    builds.runtime_objects(shared)
    end = time.monotonic() + seconds
    with multiprocessing.get_context("fork").Pool(jobs, initializer=_nice) as pool:
        ahead = threading.Semaphore(8 * jobs)      # a pool would take all trials at once

        def waiting() -> Iterator[Trial]:
            for trial in wanted:
                ahead.acquire()
                if time.monotonic() > end:
                    return
                yield trial

        for outcome in pool.imap(_Try(shared), waiting()):
            ahead.release()
            found.append(outcome)
            tell(found)
    return found


def _nice() -> None:
    os.nice(10)


@dataclass(frozen=True)
class _Try:
    shared: Path

    def __call__(self, trial: Trial) -> Outcome:
        return try_program(trial, self.shared)


def programs_of(size: str, folder: Path, say: Callable[[str], None] = print) -> list[SmallProgram]:
    """The programs of a campaign of `size` "small" or "full". What cannot be had is said and left out."""
    seeds = 200 if size == "full" else 8
    ways: list[Callable[[], Iterator[SmallProgram]]] = [lambda: corpus.csmith_programs(seeds, folder), corpus.tcc_programs]
    if size == "full":
        ways.append(corpus.torture_programs)
    found: list[SmallProgram] = []
    for way in ways:
        try:
            found += way()
        except Unavailable as e:
            say(str(e))
    sizes = collections.Counter(p.corpus for p in found)
    places = {corpus: itertools.count() for corpus in sizes}
    return sorted(found, key=lambda p: next(places[p.corpus]) / sizes[p.corpus])     # mixed, in case the campaign is stopped


# ---- figures -----------------------------------------------------------------------------------------------------


def figures(outcomes: Sequence[Outcome]) -> str:
    """A table in Markdown, and what differed."""
    rows: dict[tuple[str, str, str], collections.Counter[str]] = {}
    for outcome in outcomes:
        chain = outcome.trial.chain
        compiler = {"g++": "gcc", "clang++": "clang"}.get(chain.command, chain.command)
        rows.setdefault((outcome.trial.program.corpus, compiler, chain.level), collections.Counter())[outcome.verdict] += 1
    lines = ["| corpus | compiler | level | compared | identical | different | tool errors | left out |", "|---" * 8 + "|"]
    for (name, compiler, level), count in rows.items():
        compared = count.total() - count[LEFT_OUT]
        lines.append(f"| {name} | {compiler} | {level} | {compared} | {count[SAME]} | {count[DIFFERENT]} | {count[TOOL_ERROR]} "
                     f"| {count[LEFT_OUT]} |")
    total = collections.Counter(o.verdict for o in outcomes)
    programs = {(o.trial.program.corpus, o.trial.program.name) for o in outcomes if o.verdict != LEFT_OUT}
    head = (f"{len(programs)} programs, {total.total() - total[LEFT_OUT]} comparisons: {total[SAME]} identical, "
            f"{total[DIFFERENT]} different, {total[TOOL_ERROR]} tool errors.")
    bad = [f"- {o}".replace("\n", " ") for o in outcomes if o.verdict in (DIFFERENT, TOOL_ERROR)]
    left = collections.Counter(o.detail.split(":")[0] for o in outcomes if o.verdict == LEFT_OUT)
    why = ", ".join(f"{n} {reason}" for reason, n in left.most_common()) or "none"
    return "\n".join([head, "", *lines, "", f"Left out: {why}.", *bad]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare programs plain and instrumented")
    parser.add_argument("--size", choices=("small", "full"), default="small")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--document", type=Path, help="put the figures into this file")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after this time")
    parser.add_argument("--only", default="", help="programs whose name contains this")
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="identical-"))
    try:
        programs = [p for p in programs_of(options.size, folder / "programs") if options.only in p.name]
        outcomes = run_all(trials(programs, LEVELS), options.jobs, folder, lambda done: _tell(done, options.document),
                           options.minutes * 60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(figures(outcomes))
    if options.document:
        document.replace(options.document, "identical", figures(outcomes))
    return 1 if any(o.verdict in (DIFFERENT, TOOL_ERROR) for o in outcomes) else 0


def _tell(done: list[Outcome], target: Path | None) -> None:
    if done[-1].verdict in (DIFFERENT, TOOL_ERROR):
        print(done[-1], flush=True)
    if target is not None and len(done) % _SAVED == 0:
        document.replace(target, "identical", figures(done))


if __name__ == "__main__":
    sys.exit(main())
