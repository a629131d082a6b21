"""`hotpatch revert --pid PID …`: brings an image of one process, or of several together, back to an earlier generation."""
from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .. import abi, blockers, process, report, together
from . import UsageError, seconds, state_directory

NAME = "revert"
HELP = "bring processes back to an earlier generation"
_STATUS_SECONDS = 5.0


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pid", type=int, required=True, action="extend", nargs="+", metavar="PID",
                        help="the process; several go back together, all of them or none")
    parser.add_argument("--to", type=_generation, metavar="GEN", help="0 is the program as built (default: the one before)")
    parser.add_argument("--image", metavar="NAME", help="which image, by file name or the beginning of its build-id "
                                                        "(default: the one that is patched)")
    parser.add_argument("--when", choices=("now", "quiescent", "safepoint"), default="quiescent",
                        help="as for apply (default: quiescent)")
    parser.add_argument("--timeout", type=seconds, default=10.0, metavar="S", help="seconds it may take (default: 10)")
    parser.add_argument("--dry-run", action="store_true", help="only ask whether it would work; nothing is changed")


def _generation(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: not a generation; `hotpatch status` lists them")
    return int(text)


@dataclass(frozen=True)
class _Image:
    build_id: str
    path: str
    generation: int


def _images(status: process.ProcessStatus) -> list[_Image]:
    """What is loaded, and libraries that are not and were given generations."""
    loaded = [_Image(i.build_id, i.path, i.generation) for i in status.images]
    known = {i.build_id for i in loaded}
    return [*loaded, *(_Image(k.build_id, f"library {k.build_id}", k.generation) for k in status.kept if k.build_id not in known)]


def run(args: argparse.Namespace) -> report.Result:
    pids = list(dict.fromkeys(args.pid))
    images = {pid: _chosen(pid, args, _images(process.status(pid, min(args.timeout, _STATUS_SECONDS)))) for pid in pids}
    generation = _target(args, images)
    taken: dict[int, float] = {}

    def ask(pid: int, ballot: int | None) -> process.ApplyResult:
        begun = time.monotonic()
        answer = _revert(pid, images[pid].build_id, generation, args, ballot)
        taken[pid] = time.monotonic() - begun
        return answer

    asks = {pid: partial(ask, pid) for pid in pids}
    outcome = together.ask_each(asks) if args.dry_run else together.take(asks)
    results = [report.reverted(images[pid].path, images[pid].generation, answer.document, taken[pid])
               for pid, answer in outcome.results.items()]
    failures = [(pid, blockers.explain(pid, e)) for pid, e in outcome.failures.items()]
    if len(pids) == 1:
        return results[0] if results else report.failure(failures[0][1])
    return report.reverted_together(images[pids[0]].path, results, failures)


def _revert(pid: int, build_id: str, generation: int, args: argparse.Namespace, ballot: int | None) -> process.ApplyResult:
    from .. import goingback

    def send(target: int, payloads: Sequence[Path]) -> process.ApplyResult:
        return process.revert(pid, build_id, target, args.dry_run, args.when, args.timeout, ballot, payloads)

    stores = goingback.stores(pid, state_directory())
    try:
        return goingback.revert(pid, build_id, generation, stores, send)
    except process.AgentError as e:
        if e.code is not abi.Code["NO_ARENA"] or args.dry_run or len(args.pid) > 1:
            raise
        return goingback.step_by_step(pid, build_id, generation, stores, send)


def _target(args: argparse.Namespace, images: dict[int, _Image]) -> int:
    """The generation to go back to. Raises UsageError."""
    now = {image.generation for image in images.values()}
    if args.to is None and len(now) > 1:
        where = ", ".join(f"{pid} at {image.generation}" for pid, image in images.items())
        raise UsageError(f"the processes are at different generations ({where}); choose with --to")
    generation: int = max(0, min(now) - 1) if args.to is None else args.to
    for pid, image in images.items():
        if generation > image.generation:
            raise UsageError(f"{image.path} in process {pid} is at generation {image.generation}, before generation "
                             f"{generation}; `hotpatch apply` goes forward")
    return generation


def _chosen(pid: int, args: argparse.Namespace, images: list[_Image]) -> _Image:
    """The one image that is meant. Raises UsageError."""
    found = [i for i in images if i.generation or args.to is not None or args.image]
    if args.image:
        found = [i for i in found if i.build_id.startswith(args.image) or i.path == args.image
                 or i.path.rpartition("/")[2] == args.image]
    patched = [i for i in found if i.generation]
    if len(patched or found) == 1:
        return (patched or found)[0]
    if not found:
        raise UsageError(f"process {pid} has no image {args.image}" if args.image else
                         f"nothing is patched in process {pid}")
    several = ", ".join(i.path for i in patched or found)
    raise UsageError(f"several images of process {pid} could be meant: {several}; choose with --image")
