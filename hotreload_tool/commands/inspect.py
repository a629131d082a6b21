"""`hotpatch inspect BUNDLE`: what a bundle would bring, and to which image."""
from __future__ import annotations

import argparse

from .. import report
from . import readable_file

NAME = "inspect"
HELP = "show what is in a bundle"


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=readable_file, metavar="BUNDLE")


def run(args: argparse.Namespace) -> report.Result:
    from .. import bundle
    return report.bundle(str(args.bundle), bundle.read(args.bundle).manifest)
