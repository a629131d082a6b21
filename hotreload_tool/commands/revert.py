"""`hotpatch revert --pid PID`: brings an image of a process back to an earlier generation."""
from __future__ import annotations

import argparse
import time

from .. import blockers, process, report
from ..errors import HotreloadError
from . import UsageError, seconds

NAME = "revert"
HELP = "bring a process back to an earlier generation"
_STATUS_SECONDS = 5.0


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pid", type=int, required=True, metavar="PID")
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


def run(args: argparse.Namespace) -> report.Result:
    begun = time.monotonic()
    image = _chosen(args, process.status(args.pid, min(args.timeout, _STATUS_SECONDS)).images)
    generation = max(0, image.generation - 1) if args.to is None else args.to
    if generation > image.generation:
        raise UsageError(f"{image.path} in process {args.pid} is at generation {image.generation}, before generation "
                         f"{generation}; `hotpatch apply` goes forward")
    try:
        answer = process.revert(args.pid, image.build_id, generation, args.dry_run, args.when, args.timeout)
    except HotreloadError as e:
        raise blockers.explain(args.pid, e) from None
    return report.reverted(image.path, image.generation, answer.document, time.monotonic() - begun)


def _chosen(args: argparse.Namespace, images: list[process.LiveImage]) -> process.LiveImage:
    """The one image that is meant. Raises UsageError."""
    found = [i for i in images if i.generation or args.to is not None or args.image]
    if args.image:
        found = [i for i in found if i.build_id.startswith(args.image) or i.path == args.image
                 or i.path.rpartition("/")[2] == args.image]
    patched = [i for i in found if i.generation]
    if len(patched or found) == 1:
        return (patched or found)[0]
    if not found:
        raise UsageError(f"process {args.pid} has no image {args.image}" if args.image else
                         f"nothing is patched in process {args.pid}")
    several = ", ".join(i.path for i in patched or found)
    raise UsageError(f"several images of process {args.pid} could be meant: {several}; choose with --image")
