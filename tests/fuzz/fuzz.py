"""Feeds damaged input to everything that reads bytes, and counts what comes of it. See docs/fuzzing.md.

usage: fuzz.py [--target T]… [--executions N] [--minutes M] [--seed S] [--findings FOLDER] [--seeds FOLDER]
               [--document docs/fuzzing.md]
       fuzz.py --target T --input FILE --seeds FOLDER       one input, as a finding is repeated

A sample of the executions is traced: lines that were not reached before make the mutant a seed of further ones.
SIGTERM ends a run as its time would: figures are written, and those of several runs, with another --seed each, can be added up
(--figures A B …). Exit status 1: there are findings.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), *(str(REPO / "tests" / n) for n in ("fuzz", "verify", "cases", "live", "campaign", ""))]

import targets  # noqa: E402

MEMORY = 2 << 30         # bytes of address space
SECONDS = 20             # of processor time one execution may take; the slowest good input takes one
_SAVE_SECONDS = 60
_MOST_SEEDS = 300
_MOST_FINDINGS = 20


class Hang(BaseException):
    """An execution went on too long. Not an Exception: no reader can take it for damage."""


@dataclass
class Result:
    target: str
    executions: int = 0
    seconds: float = 0.0
    answers: dict[str, int] = field(default_factory=dict)
    reached: int = 0          # lines, in the traced sample
    lines: int = 0            # lines there are
    seeds: int = 0            # mutants that reached new lines
    slowest: float = 0.0      # seconds
    findings: list[str] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)       # of damage


class Coverage:
    """Lines of the target's files that were reached while tracing was on."""

    def __init__(self, files: list[Path]) -> None:
        self.files = {str(f) for f in files}
        self.all = {(str(f), line) for f in files for line in _lines(compile(f.read_text(), str(f), "exec"))}
        self.reached: set[tuple[str, int]] = set()

    def traced(self, run: Any, data: bytes) -> tuple[Any, bool]:
        """The answer, and whether new lines were reached."""
        before = len(self.reached)
        sys.settrace(self._call)
        try:
            answer = run(data)
        finally:
            sys.settrace(None)
        return answer, len(self.reached) > before

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename in self.files else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.reached.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


def _lines(code: CodeType) -> set[int]:
    """Lines inside of functions: those of the module itself run when it is imported, before any input."""
    found = {line for _, _, line in code.co_lines() if line} if code.co_name != "<module>" else set()
    found -= {code.co_firstlineno}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _lines(constant)
    return found


def _limit(memory: int) -> None:
    def alarm(number: int, frame: Any) -> None:
        raise Hang
    signal.signal(signal.SIGPROF, alarm)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _when_asked_to_end() -> list[int]:
    """A list that is empty until a SIGTERM comes."""
    came: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    return came


def _once(run: Any, data: bytes) -> Any:
    """The answer. Whatever else comes out of the reader goes on as an exception."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return run(data)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def fuzz(target: targets.Target, executions: int, seconds: float, seed: int, keep: Path | None,
         saved: Callable[[Result], None] = lambda r: None, asked_to_end: Sequence[int] = ()) -> Result:
    """`saved` gets the figures once a minute. The run ends early when `asked_to_end` is not empty any more."""
    random, pool = Random(f"{seed} {target.name}"), list(target.seeds)
    coverage = Coverage([REPO / "hotreload_tool" / f for f in target.files])
    result = Result(target.name, lines=len(coverage.all))
    for good in target.seeds:
        answer, _ = coverage.traced(target.run, good)
        assert answer not in ("refused", "not signed"), f"{target.name}: a good input is refused"
    started = last = time.monotonic()
    while result.executions < executions and time.monotonic() - started < seconds and len(result.findings) < _MOST_FINDINGS \
            and not asked_to_end:
        data = target.mutate(random, random.choice(pool) if random.random() < 0.5 else random.choice(target.seeds))
        sampled, new = result.executions % target.sample == 0, False
        result.executions += 1
        began = time.process_time()
        try:
            if sampled:
                answer, new = _once(lambda d: coverage.traced(target.run, d), data)
            else:
                answer = _once(target.run, data)
        except (Exception, Hang) as e:      # all that is no documented answer is a finding
            answer = "finding"
            result.findings.append(_kept(target.name, data, e, keep))
        if not sampled:
            result.slowest = max(result.slowest, time.process_time() - began)
        if new and len(pool) < _MOST_SEEDS:
            pool.append(data)
            result.seeds += 1
        result.answers[answer] = result.answers.get(answer, 0) + 1
        if time.monotonic() - last > _SAVE_SECONDS:
            last = time.monotonic()
            saved(_now(result, target, coverage, started))
    try:
        target.finish()
    except Exception as e:
        result.findings.append(_kept(target.name, b"", e, None))
    return _now(result, target, coverage, started)


def _now(result: Result, target: targets.Target, coverage: Coverage, started: float) -> Result:
    result.seconds, result.reached = time.monotonic() - started, len(coverage.reached & coverage.all)
    result.kinds = dict(target.kinds)
    return result


def _kept(name: str, data: bytes, error: BaseException, keep: Path | None) -> str:
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    at = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else ""
    said = f"{name}: {type(error).__name__} at {at}: {str(error)[:200]!r}"
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        path = keep / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        said += f" ({path})"
    return said


# ---- the table of the page ---------------------------------------------------------------------------------------

_BEGIN, _END = "<!-- python: begin -->\n", "<!-- python: end -->\n"


def document(path: Path, results: list[Result]) -> None:
    """Write the rows of these targets; those of others stay."""
    before, mark, rest = path.read_text().partition(_BEGIN)
    table, closing, after = rest.partition(_END)
    if not mark or not closing:
        raise ValueError(f"{path} has no table between {_BEGIN.strip()} and {_END.strip()}")
    rows = {line.split("|")[1].strip(" `"): line for line in table.splitlines()[2:] if line.startswith("|")}
    for r in results:
        answers = ", ".join(f"{n:,} {what}" for what, n in sorted(r.answers.items(), key=lambda a: -a[1]))
        lines = f"{r.reached} of {r.lines} ({100 * r.reached // r.lines} %)" if r.lines else "none of Python"
        rows[r.target] = f"| `{r.target}` | {r.executions:,} | {answers} | {lines} | {r.slowest:.2f} s | {len(r.findings)} |"
    head = ["| Target | Executions | Answers | Lines reached | Slowest | Findings |", "| --- | --- | --- | --- | --- | --- |"]
    listed = [rows[n] for n in targets.NAMES if n in rows]
    path.write_text(before + _BEGIN + "\n".join([*head, *listed]) + "\n" + _END + after)


def merged(results: list[Result]) -> list[Result]:
    """Results of several runs of one target as one: the lines reached are those of the run that reached most."""
    found: dict[str, Result] = {}
    for r in results:
        if r.target not in found:
            found[r.target] = r
            continue
        f = found[r.target]
        f.answers = {a: f.answers.get(a, 0) + r.answers.get(a, 0) for a in f.answers | r.answers}
        f.executions, f.seconds, f.findings = f.executions + r.executions, f.seconds + r.seconds, f.findings + r.findings
        f.kinds = {k: f.kinds.get(k, 0) + r.kinds.get(k, 0) for k in f.kinds | r.kinds}
        f.slowest, f.reached, f.seeds = max(f.slowest, r.slowest), max(f.reached, r.reached), f.seeds + r.seeds
    return list(found.values())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Feed damaged input to everything that reads bytes.")
    parser.add_argument("--target", action="append", choices=targets.NAMES, help="default: all")
    parser.add_argument("--executions", type=int, default=1000, help="of each target (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each target at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", type=Path, help="run this one input and print the answer")
    parser.add_argument("--findings", type=Path, help="keep the inputs of findings in this folder")
    parser.add_argument("--seeds", type=Path, help="make the good input in this folder, or take what an earlier run made there; "
                        "--input needs the folder of the run that found it")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--figures", type=Path, nargs="*", default=[], help="run nothing: take figures that --json wrote")
    parser.add_argument("--document", type=Path, help="write the figures into this page")
    return parser.parse_args()


def main() -> int:
    asked, asked_to_end = _arguments(), _when_asked_to_end()
    results = merged([Result(**r) for f in asked.figures for r in json.loads(f.read_text())])
    with tempfile.TemporaryDirectory(prefix="hr-fuzz-") as folder:
        for name in [] if asked.figures else asked.target or targets.NAMES:
            if asked_to_end:
                break
            home = Path(asked.seeds or folder, name)
            home.mkdir(parents=True, exist_ok=True)
            target = targets.of(name, home)
            _limit(MEMORY)
            if asked.input:
                print(_once(target.run, asked.input.read_bytes()))
                return 0
            r = fuzz(target, asked.executions, 60 * asked.minutes, asked.seed, asked.findings,
                     lambda now: _save(asked.json, [*results, now]), asked_to_end)
            results.append(r)
            print(f"{name}: {r.executions} executions in {r.seconds:.0f} s, {r.answers}, {r.reached} of {r.lines} lines, "
                  f"{r.seeds} new seeds, slowest {r.slowest:.2f} s", *r.findings, sep="\n  ", flush=True)
    _save(asked.json, results)
    if asked.document:
        document(asked.document, results)
    return 1 if any(r.findings for r in results) else 0


def _save(path: Path | None, results: list[Result]) -> None:
    if path is not None:
        written = path.with_name(path.name + ".new")
        written.write_text(json.dumps([vars(r) for r in results]))
        written.replace(path)


if __name__ == "__main__":
    sys.exit(main())
