"""Compiling and linking without a build tool: one compiler, one level, one linker, plain or instrumented.

What the SCons tool does with a compile and a link is done here by hand, so that thousands of programs can be built in one
Python process.
"""
from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import stubkind

from hotreload_tool import compiler, instrument, names

REPO = Path(__file__).resolve().parents[2]
RUNTIME = REPO / "runtime"
LEVELS = ("-O0", "-Og", "-O1", "-O2", "-O3", "-Os")
LINKERS = ("bfd", "gold", "lld", "mold")
ARENA = 16 << 20                     # bytes reserved in each image
_RUNTIME_FLAGS = ("-std=gnu11", "-fPIC", "-O2", "-fvisibility=hidden", f"-DHOTRELOAD_ARENA_SIZE={ARENA}")
_SECONDS = 900.0             # a bound: machines that run campaigns are busy


class BuildFailed(Exception):
    """A compiler or linker failed; the message is what it said."""


@dataclass(frozen=True)
class Toolchain:
    """How a program is built. `kind`: "pie", "exec" (not position-independent) or "shared" (a library and its host)."""
    command: str = "gcc"             # "gcc", "g++", "clang", "clang++", …
    level: str = "-O2"
    kind: str = "pie"
    linker: str = "bfd"
    flags: tuple[str, ...] = ()
    debug: bool = True               # whether the tool's own -g stays

    @property
    def language(self) -> str:
        return "c++" if self.command.endswith("++") else "c"

    @property
    def code_flags(self) -> list[str]:
        position = {"pie": "-fPIE", "exec": "-fno-pie", "shared": "-fPIC"}[self.kind]
        return [self.level, position, *self.flags]

    @property
    def tool_flags(self) -> list[str]:
        found = compiler.flags([self.command], self.language, dict(os.environ), stubkind.KIND)
        return [f for f in found if self.debug or f not in ("-g", "-fdebug-types-section")]

    @property
    def link_flags(self) -> list[str]:
        form = {"pie": "-pie", "exec": "-no-pie", "shared": "-shared"}[self.kind]
        return [form, f"-fuse-ld={self.linker}"]

    def __str__(self) -> str:
        words = [self.command, self.level, self.kind, self.linker, *self.flags, *([] if self.debug else ["without -g"])]
        return " ".join(words)


def available(commands: Sequence[str], candidates: Sequence[str] = LINKERS) -> tuple[list[str], list[str]]:
    """Those of `commands` and of the linkers `candidates` that are installed."""
    linkers = {"bfd": "ld.bfd", "gold": "ld.gold", "lld": "ld.lld", "mold": "mold"}
    return ([c for c in commands if shutil.which(c)], [n for n in candidates if shutil.which(linkers[n])])


def run_tool(argv: Sequence[str | Path], seconds: float = _SECONDS, env: Mapping[str, str] | None = None,
             cwd: Path | None = None) -> str:
    """A compiler's standard output. Raises BuildFailed."""
    words = [str(a) for a in argv]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=seconds, env=env, cwd=cwd,
                              stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as e:
        raise BuildFailed(f"{' '.join(words)}: not done after {seconds:g} s") from e
    if done.returncode:
        raise BuildFailed(f"{' '.join(words)}\n{done.stderr[-4000:]}")
    return done.stdout


@dataclass
class Builder:
    """Builds in one directory with one toolchain."""
    folder: Path
    chain: Toolchain
    pad: int = 32
    extra: Sequence[str] = field(default_factory=list)      # more compiler flags: -I…, -w

    def plain_object(self, source: Path, target: Path) -> Path:
        run_tool([self.chain.command, *self.chain.code_flags, *self.extra, "-c", source, "-o", target])
        return target

    def flagged_object(self, source: Path, target: Path) -> Path:
        """Compiled with the tool's flags, not instrumented."""
        run_tool([self.chain.command, *self.chain.code_flags, *self.extra, *self.chain.tool_flags, "-c", source, "-o", target])
        return target

    def instrumented_object(self, source: Path, target: Path, name: str | None = None) -> Path:
        """As the SCons tool does it. Raises BuildFailed, errors.Refused."""
        self.flagged_object(source, target)
        instrument.instrument_file(target, object_name=name or names.object_name(target.name),
                                   options=instrument.Options(pad=self.pad, stubs=stubkind.KIND))
        return target

    def link(self, objects: Sequence[Path], target: Path, libraries: Sequence[str] = ("-lm",)) -> Path:
        run_tool([self.chain.command, *self.chain.link_flags, *objects, "-o", target, *libraries])
        return target

    def link_instrumented(self, objects: Sequence[Path], target: Path, libraries: Sequence[str] = ("-lm",)) -> Path:
        runtime, archive = runtime_objects(self.folder)
        return self.link([*objects, *runtime], target,
                         [*libraries, "-Wl,--build-id=sha1", str(archive), "-lpthread", "-ldl"])


@functools.cache
def runtime_objects(folder: Path) -> tuple[list[Path], Path]:
    """The runtime compiled by gcc (or clang), once for each directory; and the archive with `hotreload_poll`."""
    out = folder / "runtime"
    out.mkdir(parents=True, exist_ok=True)
    command = shutil.which("gcc") or shutil.which("clang") or "cc"
    objects = []
    for source in sorted(RUNTIME.glob("*.c")):
        target = out / f"{source.stem}.o"
        if not target.exists():
            run_tool([command, *_RUNTIME_FLAGS, "-c", source, "-o", f"{target}.{os.getpid()}"])
            os.replace(f"{target}.{os.getpid()}", target)
        objects.append(target)
    poll = out / "poll.o"
    archive = out / "libhotreload_poll.a"
    if not archive.exists():
        run_tool(["ar", "rcs", f"{archive}.{os.getpid()}", poll])
        os.replace(f"{archive}.{os.getpid()}", archive)
    return [o for o in objects if o != poll], archive
