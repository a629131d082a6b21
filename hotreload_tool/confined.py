"""Processes confined by seccomp: an agent must not be woken where its system calls might end the program.

docs/confined.md lists these calls. Nobody can ask a filter what it does with them.
"""
from __future__ import annotations

import os
from pathlib import Path

from .errors import HotreloadError

ALLOWED = "HOTRELOAD_SECCOMP"      # set to 1 in the tool's environment: filters allow the agent's calls
_THREAD = "hotreload"              # the name that agents give their thread (runtime/agent.c)
_STRICT = 1                        # seccomp(2): SECCOMP_MODE_STRICT


class Confined(HotreloadError):
    """The process has seccomp filters that the caller has not; it was not asked anything."""
    exit_code = 1

    def __init__(self, pid: int) -> None:
        self.message = f"process {pid} is confined by seccomp, and was not asked anything"
        self.detail = ("its filters may answer the system calls of its agent with the end of the process; if they allow those of "
                       f"docs/confined.md, set {ALLOWED}=1 for hotpatch or scons")
        super().__init__(f"{self.message}: {self.detail}")


def check(pid: int) -> None:
    """Raises Confined if the agent of `pid` has filters that the caller does not have too (as both have in a container)."""
    if os.environ.get(ALLOWED) == "1":
        return
    mode, filters = _seccomp(_agent_thread(pid))
    if mode == _STRICT or filters > _seccomp(Path("/proc/self"))[1]:
        raise Confined(pid)


def _agent_thread(pid: int) -> Path:
    """Its directory in /proc; without a thread of its own, the agent is run by one of the program's: the main one is taken."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        tids = sorted(int(task.name) for task in tasks.iterdir())
    except OSError:
        return tasks / str(pid)
    for tid in tids:
        try:
            if (tasks / str(tid) / "comm").read_text() == f"{_THREAD}\n":
                return tasks / str(tid)
        except OSError:
            continue
    return tasks / str(pid)


def _seccomp(directory: Path) -> tuple[int, int]:
    """(mode, filters) of a thread, as proc(5) has them; (0, 0) if that can't be read. Kernels before 5.9 count no filters."""
    try:
        lines = dict(line.split(":\t", 1) for line in (directory / "status").read_text(errors="replace").splitlines()
                     if line.startswith("Seccomp"))
    except (OSError, ValueError):
        return 0, 0
    mode = int(lines.get("Seccomp", 0))
    return mode, int(lines.get("Seccomp_filters", mode == 2))
