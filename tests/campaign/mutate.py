"""The mutation campaign: random edits on running programs, compared with a reference model.

    python tests/campaign/mutate.py --edits 3000 --jobs 2 --document docs/campaign.md
    python tests/campaign/mutate.py --seed 17 --toolchain "g++ -O2 pie bfd" --keep /tmp/steps     one chain again

Counted for each kind of edit: applied and right, refused (by reason), wrong, tool errors. Anything wrong is printed with
the seed that makes it again.
"""
from __future__ import annotations

import argparse
import collections
import itertools
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    _TESTS = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(_TESTS.parent), *(str(_TESTS / part) for part in (".", "live", "real", "campaign"))]

import builds
import document
from builds import LEVELS, Toolchain, available
from chains import APPLIED, BAD, INVALID, NEEDLESS, NOTHING, REFUSED, TOOL_ERROR, UNEXPECTED, WRONG, Outcome, run_chain

EDITS = 12               # of one chain


@dataclass(frozen=True)
class Job:
    seed: int
    chain: Toolchain
    edits: int = EDITS
    only: str | None = None


def toolchains() -> Iterator[Toolchain]:
    """Every compiler, level, kind of image and linker of this machine in turn, with the flags that change code; for ever."""
    commands, linkers = available(["gcc", "clang", "g++", "clang++"])
    if not commands or not linkers:
        raise SystemExit("there is no compiler, or no linker")
    flags: tuple[tuple[str, ...], ...] = ((), ("-fcf-protection",), ("-fno-omit-frame-pointer",), (), ("-fno-plt",),
                                          ("-fstack-protector-strong", "-fstack-clash-protection"))
    kinds = ("pie", "exec", "shared", "pie")
    for turn in itertools.count():
        level = LEVELS[turn // len(commands) % len(LEVELS)]
        yield Toolchain(commands[turn % len(commands)], level, kinds[turn // 3 % len(kinds)], linkers[turn // 5 % len(linkers)],
                        flags[turn // 7 % len(flags)], debug=turn % 9 != 8)


def parse_toolchain(text: str) -> Toolchain:
    """What `str(Toolchain)` printed."""
    debug = not text.endswith(" without -g")
    command, level, kind, linker, *flags = text.removesuffix(" without -g").split()
    return Toolchain(command, level, kind, linker, tuple(flags), debug)


@dataclass(frozen=True)
class _Run:
    runtime: Path

    def __call__(self, job: Job) -> list[Outcome]:
        return list(run_chain(job.seed, job.chain, job.edits, self.runtime, only=job.only))


def run_all(jobs: Iterable[Job], processes: int, tell: Callable[[Sequence[Outcome], Sequence[Outcome]], None]) -> list[Outcome]:
    """All outcomes; `tell` is called after each chain, with its outcomes and with all so far."""
    found: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        builds.runtime_objects(Path(folder))
        with multiprocessing.get_context("fork").Pool(processes, initializer=_nice) as pool:
            for outcomes in pool.imap_unordered(_Run(Path(folder)), jobs):
                found += outcomes
                tell(outcomes, found)
    return found


def _nice() -> None:
    os.nice(10)


# ---- figures -----------------------------------------------------------------------------------------------------


def figures(outcomes: Sequence[Outcome]) -> str:
    total = collections.Counter(o.verdict for o in outcomes)
    good = total[APPLIED] + total[NOTHING] + total[REFUSED]
    chains = len({(o.seed, o.chain) for o in outcomes})
    lines = [f"{total.total()} edits in {chains} chains: {total[APPLIED]} applied and right, {total[NOTHING]} changed nothing, "
             f"{total[REFUSED]} refused; {total[WRONG]} wrong, {total[TOOL_ERROR]} tool errors, {total[UNEXPECTED]} refused "
             f"without need, {total[NEEDLESS]} applied without need.", ""]
    assert good + sum(total[v] for v in (*BAD, INVALID)) == total.total()
    lines += _table("kind of edit", {o.edit for o in outcomes}, outcomes, lambda o: o.edit)
    lines += _table("compiler and level", {_built(o) for o in outcomes}, outcomes, _built)
    lines += _table("image and linker", {_image(o) for o in outcomes}, outcomes, _image)
    codes = collections.Counter(code for o in outcomes if o.verdict == REFUSED for code in o.detail.split(" ")[0].split(","))
    lines += ["Refusals by reason: " + (", ".join(f"{n} `{code}`" for code, n in codes.most_common()) or "none") + "."]
    return "\n".join(lines) + "\n"


def _built(o: Outcome) -> str:
    return f"{o.chain.command} {o.chain.level}"


def _image(o: Outcome) -> str:
    return f"{o.chain.kind} {o.chain.linker}"


def _table(head: str, names: Iterable[str], outcomes: Sequence[Outcome], name_of: Callable[[Outcome], str]) -> list[str]:
    columns = (APPLIED, NOTHING, REFUSED, *BAD)
    lines = [f"| {head} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in sorted(names):
        count = collections.Counter(o.verdict for o in outcomes if name_of(o) == name)
        lines.append(f"| {name} | {' | '.join(str(count[c]) for c in columns)} |")
    return [*lines, ""]


# ---- command line --------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Random edits on running programs")
    parser.add_argument("--edits", type=int, default=300, help="how many, about")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--seed", type=int, help="run one chain of this seed")
    parser.add_argument("--toolchain", type=parse_toolchain, help="of all chains, as a report prints it")
    parser.add_argument("--only", help="edits of this kind alone")
    parser.add_argument("--keep", type=Path, help="with --seed: keep the sources of each step here")
    parser.add_argument("--document", type=Path, help="put the figures into this file")
    options = parser.parse_args(argv)
    if options.seed is not None:
        outcomes = _one(options)
    else:
        seeds = range(options.first, options.first + -(-options.edits // EDITS))
        chains = itertools.repeat(options.toolchain) if options.toolchain else toolchains()
        jobs = (Job(seed, chain, only=options.only) for seed, chain in zip(seeds, chains))
        outcomes = run_all(jobs, options.jobs, lambda new, done: _tell(new, done, options.document))
    print(figures(outcomes))
    if options.document:
        document.replace(options.document, "mutations", figures(outcomes))
    return 1 if any(o.verdict in (*BAD, INVALID) for o in outcomes) else 0


def _one(options: argparse.Namespace) -> list[Outcome]:
    runtime = Path(tempfile.mkdtemp(prefix="mutate-"))
    try:
        outcomes = []
        for outcome in run_chain(options.seed, options.toolchain or Toolchain(), EDITS, runtime, options.keep, options.only):
            print(outcome)
            outcomes.append(outcome)
        return outcomes
    finally:
        shutil.rmtree(runtime, ignore_errors=True)


def _tell(new: Sequence[Outcome], done: Sequence[Outcome], target: Path | None) -> None:
    for outcome in new:
        if outcome.verdict in (*BAD, INVALID):
            print(outcome, flush=True)
    if target is not None:
        document.replace(target, "mutations", figures(done))       # so that a campaign that is stopped leaves its figures


if __name__ == "__main__":
    sys.exit(main())
