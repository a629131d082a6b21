"""`hotpatch apply BUNDLE`: brings a bundle into running processes; all of them take all of it, or none anything."""
from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import blockers, guard, process, report, together
from ..errors import HotreloadError, NotForImage
from . import UsageError, readable_file, seconds, state_directory

if TYPE_CHECKING:
    from ..bundle import Bundle

NAME = "apply"
HELP = "apply a bundle to running processes"
_STATUS_SECONDS = 5.0    # bound on the question which images a process has, asked of every process


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=readable_file, metavar="BUNDLE")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--pid", type=int, action="extend", nargs="+", metavar="PID",
                       help="these processes, together (default: the one process of yours that runs an image of the bundle)")
    which.add_argument("--all", action="store_true", help="every process of yours that runs an image of the bundle, "
                                                           "all of them or none")
    parser.add_argument("--when", choices=("now", "quiescent", "safepoint"), default="quiescent",
                        help="quiescent (default): all threads halt for a moment, and none may be in a function that changes; "
                             "now: no thread is stopped, and calls under way finish in the old code; safepoint: all threads "
                             "are at a safepoint of the program")
    parser.add_argument("--timeout", type=seconds, default=10.0, metavar="S",
                        help="seconds that a process has to take the bundle (default: 10)")
    parser.add_argument("--guard", type=seconds, default=0.0, metavar="S",
                        help="wait for S seconds; if a thread crashes in the new code in that time, the process takes it back")
    parser.add_argument("--dry-run", action="store_true", help="only ask whether it would work; nothing is changed")


def run(args: argparse.Namespace) -> report.Result:
    from .. import bundle as bundles

    bundle = bundles.read(args.bundle)
    pids = _chosen(args, bundle.manifest)
    payloads = _file_payloads(bundle)
    begun = time.time()
    outcomes, failures = _read(bundle.manifest, _ask_all(pids, bundle.manifest, payloads, args))
    if args.guard and not args.dry_run:
        outcomes, failures = report.guarded(outcomes, failures, guard.watch_all(pids, begun, payloads))
    return report.applied(bundle.manifest["program"], outcomes, failures)


def _chosen(args: argparse.Namespace, manifest: report.Document) -> list[int]:
    """The processes to patch. Raises UsageError where several would do and none was named."""
    if args.pid:
        return list(dict.fromkeys(args.pid))
    found = [pid for pid in (agent.pid for agent in process.find()) if _images_in(pid, manifest)]
    if not found:
        raise NoProcess(f"no process of yours runs an image of {args.bundle}; `hotpatch ps` lists those with an agent")
    if len(found) > 1 and not args.all:
        raise UsageError(f"processes {', '.join(map(str, found))} run images of {args.bundle}; "
                         "choose with --pid, or take --all")
    return found


def _images_in(pid: int, manifest: report.Document) -> list[report.Document]:
    """The manifest's entries for images that the process has loaded; none if it does not answer."""
    try:
        return _loaded(process.status(pid, _STATUS_SECONDS), manifest)
    except HotreloadError:
        return []     # `find` saw a process that ended since, or that hangs: it can't be chosen for the user


def _loaded(status: process.ProcessStatus, manifest: report.Document) -> list[report.Document]:
    loaded = {image.build_id for image in status.images}
    return [image for image in manifest["images"] if image["build_id"] in loaded]


@dataclass
class _Done:
    """What became of it, by pid."""
    images: dict[int, list[report.Document]] = field(default_factory=dict)     # the manifest's entries for its images
    seconds: dict[int, float] = field(default_factory=dict)
    outcome: together.Outcome = field(default_factory=together.Outcome)


def _ask_all(pids: list[int], manifest: report.Document, payloads: dict[str, Path], args: argparse.Namespace) -> _Done:
    done = _Done()
    unable: dict[int, Exception] = {}
    for pid in pids:
        try:
            done.images[pid] = _images_of(pid, manifest, args.timeout)
        except HotreloadError as e:
            unable[pid] = e

    def ask(pid: int, ballot: int | None) -> process.ApplyResult:
        begun = time.monotonic()
        files = [payloads[image["build_id"]] for image in done.images[pid]]
        answer = process.apply(pid, files, args.dry_run, args.when, args.timeout, ballot, args.guard)
        done.seconds[pid] = time.monotonic() - begun
        return answer

    asks = {pid: partial(ask, pid) for pid in done.images}
    if args.dry_run:
        done.outcome = together.ask_each(asks)
    elif not unable:
        done.outcome = together.take(asks)
    else:
        done.outcome.failures = {pid: together.left_alone() for pid in asks}
    done.outcome.failures.update(unable)
    return done


def _read(manifest: report.Document, done: _Done) -> tuple[list[report.Document], list[tuple[int, Exception]]]:
    """Outcomes and failures, as report.applied wants them."""
    outcomes = [report.image_outcome(pid, image, answer.document, done.seconds[pid])
                for pid, answer in done.outcome.results.items() for image in done.images[pid]]
    return outcomes, [(pid, blockers.explain(pid, e)) for pid, e in done.outcome.failures.items()]


def _images_of(pid: int, manifest: report.Document, timeout: float) -> list[report.Document]:
    """The manifest's entries for the images of one process. Raises NotForImage if there are none."""
    images = _loaded(process.status(pid, min(timeout, _STATUS_SECONDS)), manifest)
    if not images:
        wanted = ", ".join(image["build_id"] for image in manifest["images"])
        raise NotForImage(f"pid {pid} runs no image that the bundle is for (build-id {wanted}); "
                          "make a bundle from the build that it was started from")
    return images


def _file_payloads(bundle: Bundle) -> dict[str, Path]:
    """Build-id -> a read-only file with that image's payload, named after its content.

    Processes map copies that bear these names, and debuggers and profilers look for them, so they stay.
    """
    from ..baseline import Store

    store = Store(state_directory())
    return {image["build_id"]: store.payload(payload)
            for image, payload in zip(bundle.manifest["images"], bundle.payloads, strict=True)}


class NoProcess(HotreloadError):
    """Nothing runs that could be patched."""
    exit_code = 3
