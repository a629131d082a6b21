"""Which flags of ours a compiler takes, found by asking it once."""
from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from . import arch, building

# -fno-ipa-ra: a caller must not rely on the registers a replaceable callee leaves alone.
# -fno-gnu-unique: STB_GNU_UNIQUE symbols cannot be reached PC-relative from a payload.
# -mno-direct-extern-access (gcc 12) / -fno-direct-access-external-data (clang 12): data of shared libraries is
# reached through the GOT, never by a copy relocation that a payload would not share.
# -fno-ipa-reference-addressable (gcc 10) / -fkeep-persistent-storage-variables (clang 18): a static variable that the
# source no longer writes to is not replaced by its initial value, since it lives on with another; and one that is only
# written is kept, since the next edit may read it.
# -fno-plt: calls of other units have room to go through a slot (calls.py).
_ANY = ("-ffunction-sections", "-fdata-sections", "-fno-common")
_TYPES = ("-g", "-fdebug-types-section")
_GCC = ("-fno-ipa-ra", "-fno-gnu-unique")
_CALLS = "-fno-plt"
_GCC_STATE = "-fno-ipa-reference-addressable"
_CLANG = "-fno-direct-access-external-data"
_CLANG_STATE = "-fkeep-persistent-storage-variables"
CANDIDATES = (
    (*_ANY, *_GCC, _GCC_STATE, "-mno-direct-extern-access", _CALLS, *_TYPES),
    (*_ANY, *_GCC, _GCC_STATE, *_TYPES),
    (*_ANY, *_GCC, *_TYPES),
    (*_ANY, _CLANG, _CLANG_STATE, *_TYPES),
    (*_ANY, _CLANG, *_TYPES),
)
_PROBE_SECONDS = 60
_FINDS = ("PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX")     # variables by which compilers and their parts are found


_MODEL = re.compile(r"-f((?:no-)?(?:pic|PIC|pie|PIE))$")


class Unsupported(ValueError):
    """The compiler takes none of our sets of flags. The message has its name and its own words."""


def flags(command: Sequence[str], language: str, environment: Mapping[str, str], stubs: str = "plt") -> tuple[str, ...]:
    """The first set of `CANDIDATES` that `command` takes for `language` ("c" or "c++"), with what the kind of `stubs` needs.

    Compiles an empty file to nowhere, once for each set tried and each compiler; writes nothing. Raises Unsupported.
    """
    return _flags(tuple(command), language, tuple(sorted(environment.items())), stubs)


def kept_flags(command: Sequence[str], language: str, environment: Mapping[str, str], directory: str,
               write: bool = True, stubs: str = "plt") -> tuple[str, ...]:
    """`flags`, kept in a file of `directory`: asking takes longer than much of what a patch does. `write`: whether a file may
    be made of what was not known. Raises Unsupported."""
    return _kept(tuple(command), language, tuple(sorted(environment.items())), directory, write, stubs)


@functools.cache
def _kept(command: tuple[str, ...], language: str, variables: tuple[tuple[str, str], ...], directory: str,
          write: bool, stubs: str) -> tuple[str, ...]:
    environment = dict(variables)
    path = os.path.join(directory, identity(command, language, environment, stubs))
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
        known = json.load(file)
        if isinstance(known, list) and tuple(known) in map(functools.partial(_for_stubs, stubs), CANDIDATES):
            return tuple(known)
    found = flags(command, language, environment, stubs)
    if write:
        with contextlib.suppress(OSError):       # then it is asked again
            _write(path, json.dumps(found))
    return found


def identity(command: Sequence[str], language: str, environment: Mapping[str, str], stubs: str = "plt") -> str:
    """Changes when the compiler does: its file, or that of another word of the command, is another, or newer."""
    files = []
    for word in command:
        path = shutil.which(word, path=environment.get("PATH"))
        if path is not None:
            found = os.stat(path)
            files.append((os.path.realpath(path), found.st_size, found.st_mtime_ns, found.st_ino))
    about = (list(command), files, language, stubs, CANDIDATES, [environment.get(name) for name in _FINDS])
    return building.digest_of(repr(about))


def _write(path: str, text: str) -> None:
    """At once or not at all: several compilers run at the same time."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def of_a_library(words: Iterable[str]) -> bool:
    """Whether a command line, whose options count from behind, makes code that can be part of a shared library."""
    models = [match[1] for word in words if (match := _MODEL.match(word))]
    return bool(models) and models[-1] in ("pic", "PIC")


def for_library(found: tuple[str, ...]) -> tuple[str, ...]:
    """`flags` for such code: without that of calls, since each function that a library calls is then looked up when it is
    loaded; some are loaded into programs that lack functions which are never called."""
    return tuple(flag for flag in found if flag != _CALLS)


@functools.cache
def _flags(command: tuple[str, ...], language: str, environment: tuple[tuple[str, str], ...], stubs: str) -> tuple[str, ...]:
    said = ""
    for candidate in CANDIDATES:
        found = _for_stubs(stubs, candidate)
        said = _try(command, (*found, "-x", language), dict(environment))
        if not said:
            return found
    hint = "HOTRELOAD_STUBS=plt, or " if stubs == "entry" else ""
    raise Unsupported(f"{' '.join(command)} cannot be used: it takes none of the flags that patching needs "
                      f"({said}); use gcc 9 or newer, or clang 12 or newer, or {hint}HOTRELOAD=0")


def _for_stubs(stubs: str, candidate: tuple[str, ...]) -> tuple[str, ...]:
    """A set of flags for a kind of stubs. Calls of functions that have heads need no other way."""
    return (*(flag for flag in candidate if flag != _CALLS), arch.NATIVE.HEAD_FLAG) if stubs == "entry" else candidate


def _try(command: Sequence[str], options: Sequence[str], environment: Mapping[str, str]) -> str:
    """What the compiler has against `options`; empty if nothing. -Werror, since clang only warns of some flags."""
    argv = [*command, "-Werror", *options, "-S", "/dev/null", "-o", "/dev/null"]
    try:
        done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=_PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Unsupported(f"{command[0]} cannot be run: {e}; set CC and CXX to gcc or clang") from e
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
