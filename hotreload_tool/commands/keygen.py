"""`hotpatch keygen FILE`: a new key to sign bundles with."""
from __future__ import annotations

import argparse
from pathlib import Path

from .. import report

NAME = "keygen"
HELP = "make a key to sign bundles with"


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE",
                        help="takes the private key, readable by you alone; FILE.pub takes the public one")


def run(args: argparse.Namespace) -> report.Result:
    from .. import signature

    key = signature.generate(args.file)
    public = f"{args.file}{signature.PUBLIC_SUFFIX}"
    document: report.Document = {"private": str(args.file), "public": public, "key": key.hex(),
                                 "identity": signature.identity(key)}
    return report.Result(document, [
        report.Line(f"key {signature.identity(key)}", "bold"),
        report.Line(f"  {args.file}: the private key; who has it can sign. Keep it where bundles are signed, and nowhere else"),
        report.Line(f"  {public}: the public key, for HOTRELOAD_TRUSTED_KEYS of a build and `hotpatch verify --key`")])
