"""Where the shared libraries are that an image loads: a payload is linked against the same ones."""
from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

_SECONDS = 60       # bound on one question to the compiler


def find(needed: Iterable[str], image: str, runpath: Sequence[str], compiler: Sequence[str],
         directories: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths of the libraries named `needed` (DT_NEEDED), and the names of those that were not found.

    Searched as ld.so and the linker would: the image's own run path, `directories` (of -L), then what the compiler knows.
    """
    origin = str(Path(image).resolve().parent)
    places = [p.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for p in runpath] + list(directories)
    found: list[str] = []
    missing: list[str] = []
    for name in needed:
        if name.startswith(("ld-linux", "ld64", "linux-vdso")):
            continue                              # the loader itself: nothing is imported from it by name
        path = _in_directories(name, places) or _known_to_compiler(name, tuple(compiler))
        (found if path else missing).append(path or name)
    return found, missing


def _in_directories(name: str, places: Iterable[str]) -> str | None:
    if "/" in name:
        return name if os.path.exists(name) else None
    return next((path for place in places if os.path.exists(path := os.path.join(place, name))), None)


@functools.cache
def _known_to_compiler(name: str, compiler: tuple[str, ...]) -> str | None:
    try:
        done = subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    path = done.stdout.strip()
    return path if done.returncode == 0 and os.path.isabs(path) and os.path.exists(path) else None


@functools.cache
def linker(compiler: tuple[str, ...]) -> str | None:
    """The program that the compiler calls to link with -fuse-ld=bfd; None if it does not say."""
    try:
        done = subprocess.run([*compiler, "-print-prog-name=ld.bfd"], capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return shutil.which(done.stdout.strip()) if done.returncode == 0 else None
