"""Which compiles have a prefix, and the command lines that make one and use it.

The compiler reads a copy of the source, in a folder of ours, whose top lines are empty; what was compiled of these comes in
by `-include` (gcc, a .gch file) or `-include-pch` (clang). So that nothing shows of that:

- the folder of the source is searched first for `#include "..."`, as it would be, by a link to it in a folder of ours;
- names of files in our folders are mapped to what they would be (`-ffile-prefix-map`): in `__FILE__`, in debug information.
"""
from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .. import command_line
from .text import Unsuitable

_PROBE_SECONDS = 30
_COMPILER = re.compile(r"([\w.]+-)*(gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(-[\d.]+)?")      # no script of the user's
# What changes how sources are read, reads or writes more files, or was never compared: such a compile stays as it is.
_UNSUITABLE = frozenset(("-I-", "-P", "-C", "-CC", "-x", "-Xclang", "-Xpreprocessor", "-Xassembler", "-pg", "-working-directory",
                         "-iprefix", "-iwithprefix", "-iwithprefixbefore", "-ivfsoverlay", "-wrapper", "-aux-info", "-arch"))
_UNSUITABLE_PREFIXES = ("-include", "--include", "-imacros", "-save-temps", "--save-temps", "-fmodule", "-fpch", "-fpreprocessed",
                        "-fdirectives-only", "-flto", "-fprofile", "-ftest-coverage", "--coverage", "-coverage", "-gsplit-dwarf",
                        "-fplugin", "-specs", "--specs", "-Wp,", "-traditional", "-fdump", "-fstack-usage", "-fcallgraph-info",
                        "-ftime-trace", "-dump", "-fsanitize", "-ffile-prefix-map", "-fmacro-prefix-map", "-fdebug-prefix-map",
                        "-finstrument-functions-exclude", "-MJ", "-x", "-emit-", "-S", "-language", "--language")
_REPLACED = frozenset(("-c", "--compile", "-MD", "-MMD", "-MP", "-MG", "-MV"))
_REPLACED_PREFIXES = ("-o", "--output", "-MF", "-MT", "-MQ")
_INCLUDES = ("-I", "-iquote", "-isystem", "-idirafter")


class Command(NamedTuple):
    """One compile, as the build would start it."""
    argv: tuple[str, ...]
    cwd: str                                  # absolute
    env: tuple[tuple[str, str], ...]          # sorted

    @classmethod
    def of(cls, argv: Sequence[str], cwd: str, env: Mapping[str, str]) -> Command:
        return cls(tuple(argv), os.path.abspath(cwd), tuple(sorted(env.items())))


class Unit(NamedTuple):
    """A compile that may have a prefix."""
    command: Command
    is_clang: bool
    source: str                               # as written
    language: str                             # "c" or "c++", as the compiler takes it
    words: tuple[str, ...]                    # what is neither source nor output nor about dependencies; without -c
    folders: tuple[str, ...]                  # that are searched for headers, as written

    @property
    def path(self) -> str:
        return os.path.join(self.command.cwd, self.source)

    @property
    def name(self) -> str:
        return os.path.basename(self.source)


def unit_of(command: Command) -> Unit:
    """Raises Unsuitable."""
    if not _COMPILER.fullmatch(os.path.basename(command.argv[0])):
        raise Unsuitable(f"{command.argv[0]} is no compiler that is known by its name")
    asked = command_line.parse(command.argv[1:])
    if asked.elsewhere or not asked.compile_only or len(asked.sources) != 1 or asked.inputs or asked.output is None:
        raise Unsuitable("its command is not one that makes an object of one source")
    source = asked.sources[0]
    if source.language not in ("c", "c++"):
        raise Unsuitable("it is neither C nor C++")
    if "//" in source.path:          # compilers differ in what they make of it in names of headers
        raise Unsuitable(f"its path is written {source.path}")
    words: list[str] = []
    folders: list[str] = []
    for at, word, argument in command_line.options(asked.words):
        _check(word)
        if at == source.at or word in _REPLACED or word.startswith(_REPLACED_PREFIXES):
            continue
        option = next((o for o in _INCLUDES if word.startswith(o)), None)
        if option is not None:
            folders.append(argument if argument is not None else word[len(option):])
        words += [word] if argument is None else [word, argument]
    family = _family(command.argv[0], command.env, _stamp_of(command.argv[0], command.env))
    language = "c++" if "++" in os.path.basename(command.argv[0]) else source.language
    return Unit(command, family == "clang", source.path, language, tuple(words), tuple(folders))


def _check(word: str) -> None:
    if word in _UNSUITABLE or word.startswith(_UNSUITABLE_PREFIXES):
        raise Unsuitable(f"its command has {word}")


def _stamp_of(compiler: str, env: tuple[tuple[str, str], ...]) -> tuple[str, int, int]:
    path = shutil.which(compiler, path=dict(env).get("PATH"))
    if path is None:
        raise Unsuitable(f"{compiler} is not found")
    found = os.stat(path)
    return os.path.realpath(path), found.st_mtime_ns, found.st_size


@functools.cache
def _family(compiler: str, env: tuple[tuple[str, str], ...], stamp: tuple[str, int, int]) -> str:
    """"gcc" or "clang", by what it says of itself. Raises Unsuitable. `stamp`: another compiler is asked anew."""
    argv = [compiler, "-x", "c", "-E", "-dM", "/dev/null"]
    try:
        said = subprocess.run(argv, env=dict(env), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              timeout=_PROBE_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError) as e:
        raise Unsuitable(f"{compiler} does not say what it is ({e})") from None
    if "__INTEL" in said or "__GNUC__" not in said:
        raise Unsuitable(f"{compiler} is neither gcc nor clang")
    return "clang" if "__clang__" in said else "gcc"


class Room:
    """The files of one unit, in a folder of its own."""

    def __init__(self, folder: str, unit: Unit) -> None:
        self.folder, self._unit = folder, unit
        self.top = os.path.join(folder, "top", unit.name)
        self.body = os.path.join(folder, "body", unit.name)
        self.here = os.path.join(folder, "here")
        self.dependencies = os.path.join(folder, "dependencies")
        self.compiled = f"{self.top}.pch" if unit.is_clang else f"{self.top}.gch"

    def make(self) -> None:
        for path in (self.top, self.body):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        if not os.path.islink(self.here):
            os.symlink(os.path.dirname(os.path.abspath(self._unit.path)), self.here)

    def words_for_top(self) -> list[str]:
        """Compiles what is in `top` to `compiled`."""
        return [*self._common(), "-x", f"{self._unit.language}-header", self.top, "-o", self.compiled,
                "-MD", "-MF", self.dependencies, "-MT", "x"]

    def words_for_body(self, output: str) -> list[str]:
        """Compiles what is in `body` behind `compiled`. gcc would read the text of the top if it cannot use what is compiled;
        the text is not there any more, so it fails then."""
        use = ["-include-pch", self.compiled] if self._unit.is_clang else ["-include", self.top]
        return [*self._common(), *use, "-c", self.body, "-o", output]

    def _common(self) -> list[str]:
        unit = self._unit
        folder = os.path.dirname(unit.source)
        shown = folder + "/" if folder and not folder.endswith("/") else folder
        beside = "./" if unit.is_clang and not folder else shown       # clang says ./own.h for what a.c includes
        maps = [(os.path.dirname(self.top), shown), (os.path.dirname(self.body), shown), (self.here, beside)]
        return [unit.command.argv[0], "-iquote", self.here, *unit.words, *(f"-ffile-prefix-map={a}/={b}" for a, b in maps)]
