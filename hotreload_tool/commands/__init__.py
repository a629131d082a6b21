"""The verbs of the command line, one module each.

A verb has `NAME`, `HELP`, `prepare(parser)`, which adds its arguments, and `run(args)`, which returns a
`report.Result` or raises. Modules that a verb needs for its work are imported inside `run` where they are slow to load.
"""
from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import HotreloadError

USAGE = 2


class UsageError(HotreloadError):
    """What was asked for makes no sense."""
    exit_code = USAGE


def readable_file(text: str) -> Path:
    """An argument that names a file to read; argparse turns the complaint into a usage error."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text}: {'not a regular file' if path.exists() else 'no such file'}")
    if not os.access(path, os.R_OK):
        raise argparse.ArgumentTypeError(f"{text}: not readable")
    return path


def seconds(text: str) -> float:
    """An argument that is a time to wait: a positive number of seconds, an hour at most."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text}: not a number of seconds above 0 and up to 3600")
    return value


def state_directory() -> Path:
    """$HOTRELOAD_DIR, else hotreload in the user's cache directory (XDG Base Directory Specification)."""
    chosen = os.environ.get("HOTRELOAD_DIR")
    if chosen:
        return Path(chosen).absolute()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "hotreload"
