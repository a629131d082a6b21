"""`hotpatch watch`: `scons hotpatch-watch`, with arguments for SCons behind it.

Keeps running, and makes every save of a source or header live in the programs that run. Ctrl-C ends it.
"""
from __future__ import annotations

import argparse
import os
import sys

from .. import report
from . import UsageError

NAME = "watch"
OPTIONS = ("--timings", "--json", "-h", "--help")     # its own; what follows them is for SCons
HELP = "keep watching the sources, and make every save live"


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timings", action="store_true", help="say after each save where the time went")
    parser.usage = "hotpatch watch [-h] [--timings] [SCONS-ARGUMENT …]"


def run(args: argparse.Namespace) -> report.Result:
    from ..watch import start
    if args.json:
        raise UsageError("watch goes on until it is ended, and has no one document to print")
    if args.timings:
        os.environ["HOTPATCH_TIMINGS"] = "1"
    sys.argv = ["scons", "-Q", *args.live_command, "hotpatch-watch"]
    start.first()
    return report.Result({})
