"""Small C programs that print what they computed: made by csmith, and taken from the test-suites of compilers.

Nothing of it is kept in this tree. Programs come from the machine's own package tools and their configuration: `csmith`
as installed; the test-suites from `apt-get source`, kept in `$XDG_CACHE_HOME/hotreload-tests` (or `~/.cache/…`). With
HOTRELOAD_OFFLINE=1 nothing is fetched.
"""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aptsource  # tests/real: how Debian's source packages are fetched without root and without touching its settings

_CSMITH_SECONDS = 30.0
_CSMITH = ("--max-funcs", "6", "--max-block-depth", "3", "--max-expr-complexity", "6", "--max-block-size", "4",
           "--max-array-dim", "2", "--max-array-len-per-dim", "6", "--no-packed-struct", "--no-argc")
# Features that change what code a compiler makes; taken in turn, so that a few hundred seeds have each of them often.
_VARIETIES = ((), ("--no-volatiles",), ("--float",), ("--inline-function",), ("--no-bitfields", "--unions"), ("--bitfields",),
              ("--lang-cpp", "--no-volatiles"))
# gcc's and tcc's own programs that no other compiler, no 64-bit machine or no sandbox is meant to run.
_TCC_LEFT_OUT = re.compile(r"\b(?:__TINYC__|tcc_backtrace|libtcc|__bound|asm|_WIN32)\b")
_TORTURE_LEFT_OUT = re.compile(r"dg-require-effective-target|dg-skip-if|dg-additional-options|dg-options|dg-xfail|"
                               r"\b(?:scanf|__builtin_return_address|fork|signal)\b")


class Unavailable(Exception):
    """A corpus could not be had. The message says what was tried."""


@dataclass(frozen=True)
class SmallProgram:
    corpus: str              # "csmith", "tcc", "gcc"
    name: str
    source: Path
    flags: tuple[str, ...] = ()
    language: str = "c"


# ---- csmith ------------------------------------------------------------------------------------------------------


def csmith_programs(count: int, folder: Path, first: int = 1) -> Iterator[SmallProgram]:
    """Programs of the seeds from `first` on. Raises Unavailable."""
    include = next((p for p in (Path("/usr/include/csmith"), Path("/usr/local/include/csmith")) if p.is_dir()), None)
    if shutil.which("csmith") is None or include is None:
        raise Unavailable("csmith or its headers are not installed (Debian: csmith, libcsmith-dev)")
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        options = _VARIETIES[seed % len(_VARIETIES)]
        cpp = "--lang-cpp" in options
        source = folder / f"csmith-{seed}.{'cc' if cpp else 'c'}"
        if not source.exists():
            _make(seed, options, source)
        yield SmallProgram("csmith", source.name, source, (f"-I{include}",), "c++" if cpp else "c")


def _make(seed: int, options: tuple[str, ...], target: Path) -> None:
    argv = ["csmith", "--seed", str(seed), *_CSMITH, *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_CSMITH_SECONDS, cwd=target.parent)
    if done.returncode:
        raise Unavailable(f"{' '.join(argv)}: exit code {done.returncode}: {done.stderr[-500:]}")
    target.write_text(done.stdout)


# ---- test-suites of compilers -------------------------------------------------------------------------------------


def tcc_programs() -> Iterator[SmallProgram]:
    """The single-file programs of the tiny C compiler's test-suite. Raises Unavailable."""
    folder = _cached("tcc", "tcc-tests", r"(?:^|/)tests/tests2/[^/]+\.(?:c|h)$")
    for source in sorted(folder.glob("[0-9]*.c")):
        if not _TCC_LEFT_OUT.search(source.read_text(errors="replace")) and "+" not in source.name:
            yield SmallProgram("tcc", source.name, source, ("-std=gnu99", f"-I{folder}"))


def torture_programs() -> Iterator[SmallProgram]:
    """The programs of GCC's C "torture" test-suite that any compiler of this machine can run. Raises Unavailable."""
    folder = _cached("gcc-12", "gcc-torture", r"(?:^|/)gcc/testsuite/gcc\.c-torture/execute/[^/]+\.c$")
    for source in sorted(folder.glob("*.c")):
        if not _TORTURE_LEFT_OUT.search(source.read_text(errors="replace")):
            yield SmallProgram("gcc", source.name, source, ("-std=gnu89",))


def _cached(package: str, directory: str, wanted: str) -> Path:
    """A directory with those files of a source package whose path matches `wanted`, by file name alone."""
    kept = aptsource.cache() / directory
    if not kept.is_dir():
        if os.environ.get("HOTRELOAD_OFFLINE") == "1":
            raise Unavailable(f"the source of {package} is not in {kept}, and HOTRELOAD_OFFLINE=1 forbids to fetch it")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=kept.parent) as scratch:
            unpacked = _unpack(_archive(package, Path(scratch)), Path(scratch) / "unpacked", re.compile(wanted))
            aptsource.publish(unpacked, kept)
    return kept


def _archive(package: str, scratch: Path) -> Path:
    try:
        aptsource.download(package, scratch / "files")
    except (aptsource.Unavailable, OSError) as e:
        raise Unavailable(f"the source of {package} could not be fetched: {e}") from e
    found = [f for f in sorted((scratch / "files").glob(f"{package}_*.orig.tar.*")) if f.suffix != ".asc"]
    if not found:
        raise Unavailable(f"the source package {package} has no upstream archive")
    return found[0]


def _unpack(archive: Path, target: Path, wanted: re.Pattern[str]) -> Path:
    target.mkdir()
    with tarfile.open(archive) as outer:
        _take(outer, target, wanted)
        for member in outer if not any(target.iterdir()) else []:       # Debian's gcc: an archive within the archive
            content = outer.extractfile(member) if re.search(r"\.tar\.\w+$", member.name) else None
            if content is not None:
                with content, tarfile.open(fileobj=content) as inner:
                    _take(inner, target, wanted)
    if not any(target.iterdir()):
        raise Unavailable(f"{archive.name} holds no file like {wanted.pattern}")
    return target


def _take(tar: tarfile.TarFile, target: Path, wanted: re.Pattern[str]) -> None:
    for member in tar:
        content = tar.extractfile(member) if member.isfile() and wanted.search(member.name) else None
        if content is not None:
            with content, (target / Path(member.name).name).open("wb") as out:
                shutil.copyfileobj(content, out)
