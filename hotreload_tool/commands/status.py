"""`hotpatch status PID`: what is live in one process, as its agent tells it."""
from __future__ import annotations

import argparse

from .. import guard, process, report
from ..errors import HotreloadError
from . import seconds

NAME = "status"
HELP = "show what is live in a process"


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pid", type=int, metavar="PID")
    parser.add_argument("--timeout", type=seconds, default=10.0, metavar="S", help="seconds to wait (default: 10)")


def run(args: argparse.Namespace) -> report.Result:
    try:
        return report.status_of(process.status(args.pid, args.timeout).document)
    except process.NoAgent as e:
        raise _with_last_words(e, args.pid) from None


def _with_last_words(error: process.NoAgent, pid: int) -> HotreloadError:
    """A process that crashed in a patch on probation has left a report."""
    said = guard.read(pid)
    if not said or said["state"] != "fired":
        return error
    told = report.guard_lines(said)[0].text.strip()
    return guard.Crashed(error.message, f"its last report: {told}", said, became="it is gone", exit_code=error.exit_code)
