"""`hotpatch verify BUNDLE`: whether a bundle is sound, shown from its bytes and its image's, not from what its builder said."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .. import report
from ..errors import HotreloadError
from . import UsageError, readable_file, seconds, state_directory

if TYPE_CHECKING:
    from ..verify.verdict import Verdict

NAME = "verify"
HELP = "show whether a bundle is sound, from scratch"
UNSOUND, DIFFERENT = 5, 1


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=readable_file, metavar="BUNDLE")
    parser.add_argument("--image", type=readable_file, action="append", default=[], metavar="IMAGE",
                        help="a linked image that the bundle is for, found by its build-id (default: the filed baselines)")
    parser.add_argument("--after", type=readable_file, action="append", default=[], metavar="BUNDLE",
                        help="a bundle of an earlier generation (default: those beside this one)")
    parser.add_argument("--against", type=readable_file, action="append", default=[], metavar="NEW_IMAGE",
                        help="the program linked from the new source: show that image and bundles together are equal to it")
    parser.add_argument("--key", type=readable_file, action="append", default=[], metavar="FILE.pub",
                        help="a public key you trust: the bundle must be signed by it (by one of them, if several)")
    parser.add_argument("--live-seconds", type=seconds, default=600.0, metavar="S",
                        help="seconds that the command of --live may take, each time (default: 600)")
    parser.add_argument("--live", action="store_true",
                        help="the last option, followed by -- COMMAND: run this command, which starts the image; apply, revert "
                             "and apply the bundle again under it; its exit code must stay the same")
    parser.add_argument("--strict", action="store_true", help="fail also if something could not be checked")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML")
    parser.add_argument("--sarif", type=Path, metavar="FILE", help="write the results as SARIF 2.1.0")


def run(args: argparse.Namespace) -> report.Result:
    try:
        from .. import verify
        from ..verify import outputs, underload
    except ImportError as e:
        raise HotreloadError(f"verifying needs the Python package pyelftools, which is not installed ({e})") from e
    if args.live and not getattr(args, "live_command", []):
        raise UsageError("--live is the last option, and is followed by -- and the command that starts the image")
    given = verify.Given(_images(args), [*args.after, *_beside(args.bundle)], args.against)
    verdict = verify.verify(args.bundle, given)
    _check_signature(verdict, args)
    command = getattr(args, "live_command", [])
    if command and verdict.sound:
        underload.check(verdict, [*verify.chain(args.bundle, given), args.bundle], list(given.images), command, args.live_seconds)
    elif command:
        for check in underload.CHECKS:
            verdict.cannot(check, " ".join(command), "the bundle is not sound, and is not brought into a process")
    if args.junit:
        outputs.write(args.junit, outputs.junit([verdict]))
    if args.sarif:
        outputs.write(args.sarif, outputs.sarif([verdict]))
    return report.Result(verdict.document(), outputs.lines(verdict), outputs.problem_lines(verdict),
                         exit_code(verdict, args.strict))


def _check_signature(verdict: Verdict, args: argparse.Namespace) -> None:
    """With keys the bundle must be signed. Without, a signature is said to be unchecked, and an unsigned bundle is no news."""
    from .. import bundle, signature

    keys = signature.read_keys(args.key)
    if not verdict.sound:
        if keys:
            verdict.cannot("signature", "bundle", "the bundle is not sound")
        return
    made = bundle.read(args.bundle)
    if keys:
        verdict.found("signature", "bundle", signature.problems(made, keys))
    elif any(said for _, said in signature.signers(made)):
        verdict.cannot("signature", "bundle", "it is signed, and no key to trust is named by --key")


def exit_code(verdict: Verdict, strict: bool) -> int:
    """5: the bundle is damaged, unsound or for another image. 1: it is sound, but not all that the new image is, or a live
    run failed, or (with `strict`) something could not be checked."""
    failed = verdict.failed
    if any(not name.startswith(("completeness-", "live-")) for name in failed):
        return UNSOUND
    return DIFFERENT if failed or strict and verdict.of("unchecked") else 0


def _images(args: argparse.Namespace) -> list[Path]:
    """Those named, else every filed baseline: of the store the bundle lies in, and of the user's own."""
    if args.image:
        return list(args.image)
    stores = [state_directory()]
    if len(args.bundle.absolute().parents) > 2:
        stores.insert(0, args.bundle.absolute().parents[2])       # HOTRELOAD_DIR/chains/BUILD-ID/NAME.GEN.hotpatch
    return [image for store in stores for image in sorted(store.glob("baselines/*/image"))]


def _beside(bundle: Path) -> list[Path]:
    return sorted(p for p in bundle.absolute().parent.glob("*.hotpatch") if p != bundle.absolute())
