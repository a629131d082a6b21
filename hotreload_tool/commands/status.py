"""`hotpatch status PID`: what is live in one process, as its agent tells it."""
from __future__ import annotations

import argparse

from .. import process, report
from . import seconds

NAME = "status"
HELP = "show what is live in a process"


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pid", type=int, metavar="PID")
    parser.add_argument("--timeout", type=seconds, default=10.0, metavar="S", help="seconds to wait (default: 10)")


def run(args: argparse.Namespace) -> report.Result:
    return report.status_of(process.status(args.pid, args.timeout).document)
