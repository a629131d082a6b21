"""`hotpatch sign BUNDLE --key FILE`: says by a signature who made a bundle."""
from __future__ import annotations

import argparse
from pathlib import Path

from .. import report
from . import readable_file

NAME = "sign"
HELP = "sign a bundle"


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=readable_file, metavar="BUNDLE")
    parser.add_argument("--key", type=readable_file, required=True, metavar="FILE", help="the private key of `hotpatch keygen`")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", help="write the signed bundle here (default: in place)")


def run(args: argparse.Namespace) -> report.Result:
    from .. import bundle, signature

    target = args.output or args.bundle
    key = signature.read_private(args.key)
    signed = signature.sign(bundle.read(args.bundle), key)
    bundle.write(target, signed)
    public = signature.signers(signed)[0][1]
    assert public is not None
    document: report.Document = {"bundle": str(target), "key": public.key.hex(), "identity": signature.identity(public.key)}
    return report.Result(document, [report.Line(f"{target}: signed by {signature.identity(public.key)}", "bold")])
