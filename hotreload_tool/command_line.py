"""What a command line of gcc or clang asks for: which sources it compiles, whether it links, and into what.

Only what a launcher must know. Words that are not understood stay where they are: the compiler judges them.
This module is imported at every start of a compiler: nothing heavy may be imported here.
"""
from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Options whose argument is the next word (GCC manual, "Option Summary"; clang's command guide). `-o` and `-x` are read.
_TAKES_WORD = frozenset((
    "-o", "-x", "-I", "-D", "-U", "-L", "-l", "-T", "-u", "-z", "-e", "-A", "-B", "-G", "-MF", "-MT", "-MQ", "-MJ",
    "-include", "-imacros", "-idirafter", "-iprefix", "-iwithprefix", "-iwithprefixbefore", "-isystem", "-iquote",
    "-isysroot", "-imultilib", "-iframework", "-include-pch", "-ivfsoverlay", "-Xlinker", "-Xassembler",
    "-Xpreprocessor", "-Xclang", "-Xanalyzer", "-mllvm", "-arch", "-target", "-aux-info", "-wrapper", "-param", "--param",
    "-dumpdir", "-dumpbase", "-dumpbase-ext", "-Tbss", "-Tdata", "-Ttext", "-soname", "-rpath", "--sysroot",
    "-gcc-toolchain", "-working-directory", "--output", "--include", "--entry", "--language"))
_ELSEWHERE = ("-E", "-S", "-M", "-MM", "-###", "-fsyntax-only", "-emit-llvm", "-emit-ast", "--analyze", "--preprocess",
              "--assemble", "--help", "--target-help", "--version", "-dumpversion", "-dumpmachine", "-dumpspecs",
              "-dumpfullversion")
_ELSEWHERE_PREFIXES = ("-print-", "--print-", "--help=")
# A program for a bare machine has its own start and no threads: the runtime cannot live in it. One that names -lc has all,
# only not by default: libtool links libraries of C++ so.
_BARE = ("-nostdlib", "-nodefaultlibs", "-nolibc", "--no-standard-libraries")
_LANGUAGES = {
    **dict.fromkeys((".c", ".i"), "c"),
    **dict.fromkeys((".cc", ".cp", ".cxx", ".cpp", ".CPP", ".c++", ".C", ".ii"), "c++"),
    **dict.fromkeys((".s", ".S", ".sx"), "assembler")}
_NAMED = {"c": "c", "cpp-output": "c", "c++": "c++", "c++-cpp-output": "c++", "assembler": "assembler",
          "assembler-with-cpp": "assembler"}
_OTHER_LANGUAGES = (".m", ".mi", ".mm", ".M", ".mii", ".f", ".for", ".ftn", ".F", ".FOR", ".fpp", ".FPP", ".FTN", ".f90",
                    ".f95", ".f03", ".f08", ".F90", ".F95", ".F03", ".F08", ".go", ".d", ".ads", ".adb", ".h", ".hh", ".hpp",
                    ".H", ".hp", ".hxx", ".HPP", ".h++", ".tcc", ".bc", ".ll", ".cu", ".hip")
# Options of the link that say nothing to a compile; clang warns of each.
_LINK_ONLY_WORD = frozenset(("-L", "-l", "-T", "-u", "-z", "-e", "-Xlinker", "-soname", "-rpath", "--entry"))
_LINK_ONLY = frozenset(("-shared", "-static", "-static-pie", "-rdynamic", "-s", "-pie", "-no-pie", "-nostartfiles",
                        "-static-libgcc", "-static-libstdc++", "-symbolic"))
_LINK_ONLY_PREFIXES = ("-Wl,", "-L", "-l", "-fuse-ld=", "-T")
# What makes files beside the object, named after the output of the whole command.
_BESIDE = ("-save-temps", "--save-temps", "--coverage", "-coverage", "-ftest-coverage", "-fprofile-arcs", "-gsplit-dwarf",
           "-fdump-", "-fstack-usage", "-fcallgraph-info", "-aux-info", "-ftime-trace", "-MD", "-MMD", "-dump")


class Source(NamedTuple):
    """One file to compile."""
    path: str          # as written; "-" is standard input
    language: str      # "c", "c++", "assembler", "other"
    at: int            # its place in `Invocation.words`


class Invocation(NamedTuple):
    """A command line, taken apart. `words` has response files opened up."""
    words: tuple[str, ...]
    elsewhere: bool              # no object and no image is made: preprocessing, assembly text, a question about the compiler
    compile_only: bool           # -c
    output: str | None           # as written
    sources: tuple[Source, ...]
    inputs: tuple[str, ...]      # objects, archives, shared libraries and linker scripts, as written
    libraries: tuple[str, ...]   # the NAME of each -lNAME
    directories: tuple[str, ...]  # of -L
    shared: bool
    partial: bool                # -r: an object made of objects
    bare: bool                   # linked without the C library

    @property
    def links(self) -> bool:
        return not self.elsewhere and not self.compile_only and bool(self.sources or self.inputs)

    def object_of(self, source: Source) -> str:
        """Where `-c` leaves the object of `source`."""
        if self.output is not None:
            return self.output
        return os.path.splitext(os.path.basename(source.path))[0] + ".o"


def parse(words: Sequence[str]) -> Invocation:
    """The words after the compiler's name."""
    opened = tuple(open_response_files(words))
    reader = _Reader()
    for at, word, argument in options(opened):
        reader.read(at, word, argument)
    # With several sources and one -o, or with none, the compiler itself says what is wrong.
    confused = reader.compile_only and reader.output is not None and len(reader.sources) > 1
    return Invocation(opened, reader.elsewhere or confused, reader.compile_only, reader.output, tuple(reader.sources),
                      tuple(reader.inputs), tuple(reader.libraries), tuple(reader.directories), reader.shared,
                      reader.partial, reader.bare and "c" not in reader.libraries)


def open_response_files(words: Sequence[str], depth: int = 0) -> Iterator[str]:
    """`words` with each @FILE replaced by the words in it, as GCC does; a file that cannot be read stays as it is."""
    for word in words:
        inside = _response_words(word) if word.startswith("@") and depth < 20 else None
        if inside is None:
            yield word
        else:
            yield from open_response_files(inside, depth + 1)


def _response_words(word: str) -> list[str] | None:
    try:
        with open(word[1:], encoding="utf-8", errors="surrogateescape") as file:
            return shlex.split(file.read())
    except (OSError, ValueError):
        return None


def options(words: Sequence[str]) -> Iterator[tuple[int, str, str | None]]:
    """(place, word, the separate word that is its argument)."""
    at = 0
    while at < len(words):
        takes = words[at] in _TAKES_WORD and at + 1 < len(words)
        yield at, words[at], words[at + 1] if takes else None
        at += 2 if takes else 1


class _Reader:
    """Collects what the words say, in their order: -x holds for the files after it."""

    def __init__(self) -> None:
        self.elsewhere = self.compile_only = self.shared = self.partial = self.bare = False
        self.output: str | None = None
        self.language: str | None = None
        self.sources: list[Source] = []
        self.inputs: list[str] = []
        self.libraries: list[str] = []
        self.directories: list[str] = []

    def read(self, at: int, word: str, argument: str | None) -> None:
        if not word.startswith("-") or word == "-":
            self._file(at, word)
        elif word[:2] in ("-o", "-x", "-l", "-L") and (argument is not None or len(word) > 2):
            self._valued(word[:2], argument if argument is not None else word[2:])
        elif word.startswith(("--output", "--language")):
            self._valued("-o" if word[2] == "o" else "-x", argument or word.partition("=")[2])
        else:
            self._flag(word)

    def _valued(self, option: str, value: str) -> None:
        if option == "-o":
            self.output = value
        elif option == "-x":
            self.language = None if value == "none" else value
        else:
            (self.libraries if option == "-l" else self.directories).append(value)

    def _flag(self, word: str) -> None:
        self.elsewhere |= word in _ELSEWHERE or word.startswith(_ELSEWHERE_PREFIXES)
        self.compile_only |= word in ("-c", "--compile")
        self.shared |= word in ("-shared", "--shared")
        self.partial |= word in ("-r", "-Wl,-r", "-Wl,--relocatable")
        self.bare |= word in _BARE

    def _file(self, at: int, word: str) -> None:
        suffix = os.path.splitext(word)[1]
        if self.language is not None:
            self.sources.append(Source(word, _NAMED.get(self.language, "other"), at))
        elif suffix in _LANGUAGES:
            self.sources.append(Source(word, _LANGUAGES[suffix], at))
        elif suffix in _OTHER_LANGUAGES or word == "-":
            self.sources.append(Source(word, "other", at))
        else:
            self.inputs.append(word)


# ---- one command as several ------------------------------------------------------------------------------------


def can_be_split(asked: Invocation) -> bool:
    """Whether a command that compiles and links may be given as one compile for each source and a link.

    Not where it leaves files beside the object: their names come from the whole command."""
    return not any(word.startswith(_BESIDE) for word in asked.words)


def compile_words(asked: Invocation, source: Source, output: str) -> list[str]:
    """The words that compile `source` of a command that also links."""
    others = {other.at for other in asked.sources} - {source.at}
    kept: list[str] = []
    for at, word, argument in options(asked.words):
        separate = word in _LINK_ONLY_WORD
        joined = word in _LINK_ONLY or word.startswith(_LINK_ONLY_PREFIXES)
        is_input = at in others or (not word.startswith("-") and at != source.at)
        is_output = word[:2] == "-o" or word.startswith("--output")
        if not (separate or joined or is_input or is_output):
            kept += [word] if argument is None else [word, argument]
    return [*kept, "-c", "-o", output]


def link_words(asked: Invocation, objects: dict[int, str]) -> list[str]:
    """The words that link what a command compiled before. `objects`: what stands for the source at that place."""
    kept: list[str] = []
    for at, word, argument in options(asked.words):
        if at in objects:
            kept.append(objects[at])
        elif word[:2] != "-x" and not word.startswith("--language"):     # it would make sources of the objects
            kept += [word] if argument is None else [word, argument]
    return kept


_STRIPS = ("-s", "-Wl,-s", "-Wl,--strip-all")
_CUTS = ("-Wl,-retain-symbols-file", "-Wl,--retain-symbols-file")


def strips(words: Sequence[str]) -> bool:
    """Whether the image is to have no symbols."""
    return any(word in _STRIPS for _, word, _ in options(words))


def with_symbols(words: Sequence[str]) -> list[str]:
    """`words` without what takes symbols out of an image. libtool gives the file of symbols to keep as a word of its own."""
    kept, skip = [], False
    for _, word, argument in options(words):
        if not skip and word not in _STRIPS and not word.startswith(_CUTS):
            kept += [word] if argument is None else [word, argument]
        skip = word in _CUTS
    return kept
