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
    parser.add_argument("bundles", type=readable_file, nargs="+", metavar="BUNDLE",
                        help="several, for different images, go in together: a process takes all of them or none")
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
    parser.add_argument("--later", action="store_true",
                        help="with --pid: also where the process has not loaded the library that a bundle is for; it takes the "
                             "bundle when it loads it")
    parser.add_argument("--dry-run", action="store_true", help="only ask whether it would work; nothing is changed")


def run(args: argparse.Namespace) -> report.Result:
    if args.later and not args.pid:
        raise UsageError("--later needs --pid: nobody knows which processes will load a library")
    manifest, payloads = _joined(args.bundles)
    pids = _chosen(args, manifest)
    begun = time.time()
    outcomes, failures = _read(_ask_all(pids, manifest, payloads, args))
    if args.guard and not args.dry_run:
        outcomes, failures = report.guarded(outcomes, failures, guard.watch_all(pids, begun, payloads))
    return report.applied(manifest["program"], outcomes, failures)


def _joined(paths: list[Path]) -> tuple[report.Document, dict[str, Path]]:
    """One manifest of all bundles, each image with its `program`, and files of the payloads by build-id. Raises
    UsageError."""
    from .. import bundle as bundles

    found = [bundles.read(path) for path in paths]
    images = [{**image, "program": b.manifest["program"]} for b in found for image in b.manifest["images"]]
    names = list(dict.fromkeys(b.manifest["program"] for b in found))
    if len({image["build_id"] for image in images}) < len(images):
        raise UsageError("two of these bundles are for the same image; apply them one after the other")
    payloads = {build_id: path for b in found for build_id, path in _file_payloads(b).items()}
    return {"program": ", ".join(names), "images": images}, payloads


def _chosen(args: argparse.Namespace, manifest: report.Document) -> list[int]:
    """The processes to patch. Raises UsageError where several would do and none was named."""
    if args.pid:
        return list(dict.fromkeys(args.pid))
    found = [pid for pid in (agent.pid for agent in process.find()) if _images_in(pid, manifest)]
    if not found:
        raise NoProcess(f"no process of yours runs an image of {_names(args)}; `hotpatch ps` lists those with an agent")
    if len(found) > 1 and not args.all:
        raise UsageError(f"processes {', '.join(map(str, found))} run images of {_names(args)}; "
                         "choose with --pid, or take --all")
    return found


def _names(args: argparse.Namespace) -> str:
    return ", ".join(map(str, args.bundles))


def _images_in(pid: int, manifest: report.Document) -> list[report.Document]:
    """The manifest's entries for images of the process; none if it does not answer."""
    try:
        return _of_process(process.status(pid, _STATUS_SECONDS), manifest)
    except HotreloadError:
        return []     # `find` saw a process that ended since, or that hangs: it can't be chosen for the user


def _of_process(status: process.ProcessStatus, manifest: report.Document, later: bool = False) -> list[report.Document]:
    """The manifest's entries for images that the process has loaded, or for libraries that it was given generations of
    before. Of libraries that it may load some day all others too, if it has one of them or with `later`."""
    known = {i.build_id for i in status.images} | {k.build_id for k in status.kept}
    images: list[report.Document] = manifest["images"]
    later = later or any(i["build_id"] in known for i in images)
    return [i for i in images if i["build_id"] in known or (later and i["kind"] == "shared")]


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
            done.images[pid] = _images_of(pid, manifest, args)
        except HotreloadError as e:
            unable[pid] = e

    def ask(pid: int, ballot: int | None) -> process.ApplyResult:
        begun = time.monotonic()
        files = [payloads[image["build_id"]] for image in done.images[pid]]
        answer = process.apply(pid, files, args.dry_run, args.when, args.timeout, ballot, args.guard, for_later=True)
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


def _read(done: _Done) -> tuple[list[report.Document], list[tuple[int, Exception]]]:
    """Outcomes and failures, as report.applied wants them."""
    outcomes = [{**report.image_outcome(pid, image, answer.document, done.seconds[pid]), "program": image["program"]}
                for pid, answer in done.outcome.results.items() for image in done.images[pid]]
    return outcomes, [(pid, blockers.explain(pid, e)) for pid, e in done.outcome.failures.items()]


def _images_of(pid: int, manifest: report.Document, args: argparse.Namespace) -> list[report.Document]:
    """The manifest's entries for the images of one process. Raises NotForImage if there are none."""
    images = _of_process(process.status(pid, min(args.timeout, _STATUS_SECONDS)), manifest, args.later)
    if not images:
        wanted = ", ".join(image["build_id"] for image in manifest["images"])
        raise NotForImage(f"pid {pid} runs no image that the bundle is for (build-id {wanted}); "
                          "make a bundle from the build that it was started from, or, for a library that it will load, say "
                          "--later")
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
