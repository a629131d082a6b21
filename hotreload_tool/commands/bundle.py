"""`hotpatch bundle --base IMAGE NEW_IMAGE -o BUNDLE`: a bundle from two builds of a program or shared library.

For builds that SCons does not drive. Both images were linked by `hotpatch cc`; the base is the one that runs.
"""
from __future__ import annotations

import argparse
import os
from pathlib import Path

from .. import report, settings
from . import UsageError, readable_file

NAME = "bundle"
HELP = "make a bundle from two builds of a program"


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=readable_file, required=True, metavar="IMAGE",
                        help="what runs: the program or library as it was linked, or /proc/PID/exe")
    parser.add_argument("new", type=readable_file, metavar="NEW_IMAGE", help="the same, linked from the edited source")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--after", type=readable_file, action="append", default=[], metavar="BUNDLE",
                        help="a bundle that was applied to the base before; give all of them, the oldest first")
    parser.add_argument("--init", choices=settings.INITIALISERS, default=settings.INITIALISERS[0],
                        help="what living variables do with a changed initialiser (default: merge)")


def run(args: argparse.Namespace) -> report.Result:
    from .. import bundle as bundles
    from .. import two_builds
    if args.output.is_dir():
        raise UsageError(f"{args.output}: is a directory; name the file to write")
    state = os.environ.get("HOTRELOAD_DIR")
    made = two_builds.make(args.base, args.new, args.after, Path(state) if state else None, args.init)
    if made.bundle is not None:
        bundles.write(args.output, made.bundle)
    return report.bundled(str(args.output), made.bundle.manifest if made.bundle else None, made.build_id, made.plain_known)
