"""`python faulty.py STEP:KIND:SKIP MODULE ARGUMENT…`: runs a module of the tool, or SCons, that comes to grief at a step.

KIND is "kill", or "full": from there on no file can be written, as on a full disk. The first SKIP times go well.
"""
from __future__ import annotations

import os
import resource
import runpy
import signal
import sys

from hotreload_tool import steps


def come_to_grief(fault: str) -> None:
    step, kind, skip = fault.split(":")
    left = int(skip)

    def reached(at: steps.Step) -> None:
        nonlocal left
        if at is not steps.Step[step]:
            return
        left -= 1
        if left == -1 and kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if left == -1 and kind == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    steps.reached = reached


if __name__ == "__main__":
    come_to_grief(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
