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
    from .. import bundle, signature
    read = bundle.read(args.bundle)
    shown = report.bundle(str(args.bundle), read.manifest)
    keys = {said.key if said else None for _, said in signature.signers(read)}
    known = sorted(signature.identity(key) for key in keys if key)
    words = f"signed by {', '.join(known)} (not checked: `hotpatch verify --key`)" if None not in keys else "not signed"
    return report.Result(shown.document, [*shown.lines, report.Line(f"  {words}", "dim")], shown.problems)
