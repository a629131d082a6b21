"""Which files and directories a build's scripts read: a change to one of them may be a change to anything.

SConscripts read what they like (versions, lists of files, modules of the project), and Glob lists directories. Python tells
of each by an audit event.
"""
from __future__ import annotations

import os
import sys

files: set[str] = set()            # absolute
listed: set[str] = set()           # directories, absolute
_is_on: list[bool] = []


def start() -> None:
    """Take note from now on, and of what is being executed right now. An audit hook stays for good, so it is made once."""
    if not _is_on:
        _is_on.append(True)
        sys.addaudithook(_heard)
    _is_on[0] = True
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        files.add(os.path.abspath(frame.f_code.co_filename))


def stop() -> None:
    _is_on[0] = False


def _heard(event: str, arguments: tuple[object, ...]) -> None:
    if not _is_on[0] or event not in ("open", "os.listdir", "os.scandir"):
        return
    path = arguments[0]
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, str):
        return
    if event == "open":
        is_read = not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if is_read:
            files.add(os.path.abspath(path))
    else:
        listed.add(os.path.abspath(path))


def scripts(top: str) -> set[str]:
    """Of what was read, the files that lie in the tree below `top`; of what SCons itself keeps there, nothing."""
    within = top + os.sep
    modules = {os.path.abspath(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    return {path for path in files | modules if path.startswith(within) and os.path.isfile(path)
            and not os.path.basename(path).startswith(".sconsign") and f"{os.sep}__pycache__{os.sep}" not in path}
