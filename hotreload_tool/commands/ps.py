"""`hotpatch ps`: the processes of this user that can be patched."""
from __future__ import annotations

import argparse

from .. import process, report
from ..errors import HotreloadError
from . import seconds

NAME = "ps"
HELP = "list the running processes that can be patched"


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=seconds, default=2.0, metavar="S",
                        help="seconds to wait for each process (default: 2)")


def run(args: argparse.Namespace) -> report.Result:
    found, silent = [], []
    for agent in process.find():
        try:
            found.append(process.status(agent.pid, args.timeout).document)
        except HotreloadError as e:
            silent.append({"pid": agent.pid, **report.failure_document(e)})
    return report.processes(found, silent)
