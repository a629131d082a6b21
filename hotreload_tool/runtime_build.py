"""How the runtime becomes objects of an image, whoever drives the build: its sources, its flags, what a link needs.

Imports nothing heavy: read at every start of a build and of a compiler.
"""
from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

POLL = "poll"          # in an archive of its own: linked only where a program calls it
ARCHIVE = f"libhotreload_{POLL}.a"
CFLAGS = ("-std=gnu11", "-fPIC", "-O2", "-fvisibility=hidden", "-g")
CACHE = "HOTRELOAD_RUNTIME_CACHE"     # of the environment: a directory where projects share the compiled runtime
BUILD_ID = "-Wl,--build-id=sha1"


@functools.cache
def sources_directory() -> str:
    """Where the runtime's sources are: inside an installed package, or beside it in the repository."""
    here = os.path.dirname(os.path.realpath(__file__))
    packaged = os.path.join(here, "runtime")
    return packaged if os.path.isdir(packaged) else os.path.join(os.path.dirname(here), "runtime")


def sources() -> list[Path]:
    """The files to compile, in the order of the link; empty where they are not installed."""
    from pathlib import Path
    where = Path(sources_directory())
    return sorted(where.glob("*.c")) if (where / f"{POLL}.c").is_file() else []


def compile_command(compiler: Sequence[str], arena: int, keys: Sequence[bytes] = ()) -> list[str]:
    """The command that makes an object of one source, up to `-c`. `keys`: public keys, of which one must sign what the image
    takes."""
    trusted = ",".join(str(byte) for key in keys for byte in key)
    defined = [f"-DHOTRELOAD_ARENA_SIZE={arena}", *([f"-DHOTRELOAD_TRUSTED_KEYS={trusted}"] if keys else [])]
    return [*compiler, *CFLAGS, *defined, "-c"]


def configuration(compiler: Sequence[str], arena: int, environment: Mapping[str, str], keys: Sequence[bytes] = ()) -> str:
    """A directory name for what this compiler makes of the runtime: equal for equal configurations."""
    import hashlib
    text = repr((list(compiler), CFLAGS, arena, sorted(environment.items()), *keys))
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=6).hexdigest()


def preprocessor_words(active: bool) -> list[str]:
    """Lets programs include <hotreload.h>. Searched last, so that no header of ours hides one of the user's."""
    return [*(["-DHOTRELOAD=1"] if active else []), "-idirafter", sources_directory()]


def link_words(archive: str, signed: bool = False) -> list[str]:
    """The end of an image's link line, behind the runtime's objects. `signed`: it checks signatures."""
    return [BUILD_ID, archive, *(["-lsodium"] if signed else []), "-lpthread", "-ldl"]
