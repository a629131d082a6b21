"""`hotpatch cc -- COMPILER …`: a compiler launcher for builds that SCons does not drive (CC="hotpatch cc -- gcc").

Compiles and links as told; objects are instrumented, images get the runtime and are filed as baselines.
"""
from __future__ import annotations

import argparse

from .. import report

NAME = "cc"
HELP = "run a compiler, and make what comes out patchable"


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMPILER …",
                        help="the compiler and its arguments, with ccache or the like before it")


def run(args: argparse.Namespace) -> report.Result:
    from .. import launcher
    code = launcher.main(args.command)
    return report.Result({"exit_code": code}, exit_code=code)
