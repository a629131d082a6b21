"""`hotpatch cc -- COMPILER …`: runs a compiler as told, and makes what comes out patchable.

What asks the compiler a question (preprocessing, versions, the probes of a configure script) becomes the compiler, by
exec: nothing of ours is left in it. Only a command that makes an object or an image stays with us until its end.
This module is imported at every start of a compiler: nothing heavy may be imported here.
"""
from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

from . import building, command_line, runtime_build, settings
from .command_line import Invocation, Source
from .settings import Settings

USAGE = "usage: hotpatch cc -- COMPILER [ARGUMENT …]    (CC=\"hotpatch cc -- gcc\")"
FAILED = 1
_NOT_FOUND = 127              # what shells answer for a command that is not there
_SIGNALLED = 128
_WRAPPERS = ("ccache", "distcc", "icecc", "sccache")      # their first word is the compiler
# Directories and files in which configure scripts, CMake and Meson ask what the compiler can do.
_PROBE_FOLDERS = frozenset(("CMakeTmp", "CMakeScratch", "CompilerIdC", "CompilerIdCXX", "meson-private"))
_PROBE_FILE = "conftest"
_TREE_ROOTS = ("CMakeCache.txt", "build.ninja", "config.status")     # where builds are configured
_MAKEFILES = ("Makefile", "makefile", "GNUmakefile", "configure", "SConstruct")
_REPOSITORY = (".git", ".hg", ".svn", ".bzr", "debian")
_COMPILER_VARIABLES = ("PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH",
                       "GCC_EXEC_PREFIX", "SOURCE_DATE_EPOCH")
_OBJECTS = "objects"


class LauncherError(Exception):
    """Something of ours failed: the message is for people. The compiler's own failures are exit codes."""


class Ended(Exception):
    """A command of the compiler failed: there is nothing to go on with."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class Launch(NamedTuple):
    """One run: the compiler as the user named it, what is asked of it, and where things are kept."""
    compiler: tuple[str, ...]
    asked: Invocation
    chosen: Settings
    top: str                  # absolute
    directory: str            # absolute HOTRELOAD_DIR
    environ: Mapping[str, str]

    def name(self, path: str) -> str:
        """`path` relative to the top directory, with slashes."""
        folder, base = os.path.split(os.path.abspath(path))
        return os.path.relpath(os.path.join(os.path.realpath(folder), base), self.top)


# ---- the way through -------------------------------------------------------------------------------------------


def main(words: Sequence[str]) -> int:
    """`words`: what stands behind `hotpatch cc`. Returns an exit code, or becomes the compiler."""
    command = list(words[1:] if words[:1] == ["--"] else words)
    if not command or command[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return 2
    compiler, arguments = _divided(command)
    asked = command_line.parse(arguments)
    try:
        chosen = settings.check(settings.collect(os.environ, {}, {}))
        if not _is_ours(asked, chosen):
            _become(command)
        top = find_top(os.getcwd(), os.environ)
        directory = os.path.normpath(os.path.join(top, chosen.directory.removeprefix("#")))
        run(Launch(compiler, asked, chosen, top, directory, os.environ), command)
        return 0
    except Ended as e:
        return _as_exit_code(e.code)
    except (LauncherError, settings.SettingError) as e:
        print(f"hotpatch cc: {e}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return _as_exit_code(-signal.SIGINT)


def _divided(command: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The compiler, with the wrappers before it, and its arguments."""
    length = 1
    while length < len(command) and os.path.basename(command[length - 1]) in _WRAPPERS:
        length += 1
    return tuple(command[:length]), list(command[length:])


def _is_ours(asked: Invocation, chosen: Settings) -> bool:
    """Whether the command makes anything that could be patched later."""
    try:
        off = not chosen.enabled or not settings.truth(os.environ.get("HOTRELOAD", "1"))
    except ValueError as e:
        raise LauncherError(f"HOTRELOAD: {e}") from None
    makes = asked.sources or (asked.inputs and not asked.compile_only)
    nothing = asked.elsewhere or asked.output == "/dev/null" or not makes or asked.partial
    return not (off or nothing or is_probe(asked, os.getcwd()) or _missing(asked))


def _missing(asked: Invocation) -> bool:
    """Whether a file is not there: the compiler says so in its own words."""
    return any(path != "-" and not os.path.exists(path) for path in (*(s.path for s in asked.sources), *asked.inputs))


def is_probe(asked: Invocation, cwd: str) -> bool:
    """Whether a configure script asks what the compiler does."""
    paths = [asked.output or "", *(s.path for s in asked.sources), *asked.inputs]
    if any(os.path.basename(path).startswith(_PROBE_FILE) for path in paths):
        return True
    return any(not _PROBE_FOLDERS.isdisjoint(path.split("/")) for path in (cwd, *paths))


def run(launch: Launch, command: list[str]) -> None:
    """Raises Ended with the compiler's exit code where it failed, LauncherError where we did."""
    asked = launch.asked
    if asked.compile_only:
        _compile(launch, command)
    elif asked.sources and command_line.can_be_split(asked):
        _compile_and_link(launch)
    else:
        _link(launch, [], command)


def find_top(cwd: str, environ: Mapping[str, str]) -> str:
    """The directory that object names are relative to, and where .hotreload lies: the same for all of a build.

    HOTRELOAD_TOP; else the outermost directory above that a build was configured in; else the outermost with a makefile;
    else the present one. Nothing above a repository, or from the home directory on, is looked at.
    """
    given = environ.get("HOTRELOAD_TOP")
    if given:
        return os.path.realpath(given)
    here = os.path.realpath(cwd)
    above = list(_within_project(here, environ.get("HOME", "")))
    for marks in (_TREE_ROOTS, _MAKEFILES):
        marked = [folder for folder in above if any(os.path.exists(os.path.join(folder, mark)) for mark in marks)]
        if marked:
            return marked[-1]
    return here


def _within_project(folder: str, home: str) -> Iterator[str]:
    while folder not in ("/", "/tmp", os.path.realpath(home or "/")):
        yield folder
        if any(os.path.exists(os.path.join(folder, mark)) for mark in _REPOSITORY):
            return
        folder = os.path.dirname(folder)


# ---- compiles --------------------------------------------------------------------------------------------------


def _compile(launch: Launch, command: list[str]) -> None:
    """-c: each source on its own, the words as they are and ours behind them."""
    first, *more = launch.asked.sources
    if not more:
        return _make_object(launch, first, command[len(launch.compiler):], launch.asked.object_of(first))
    code = 0
    for source in launch.asked.sources:      # the compiler too goes on behind a source with errors
        output = launch.asked.object_of(source)
        code = _try_object(launch, source, command_line.compile_words(launch.asked, source, output), output) or code
    if code:
        raise Ended(code)


def _try_object(launch: Launch, source: Source, words: Sequence[str], output: str, name: str = "") -> int:
    try:
        _make_object(launch, source, words, output, name)
    except Ended as e:
        return e.code
    return 0


def _make_object(launch: Launch, source: Source, words: Sequence[str], output: str, name: str = "") -> None:
    """Compile to `output`, and instrument it as `name` (default: its path)."""
    patchable = _is_instrumented(launch, source)
    ours = _code_words(launch, source.language) if patchable else ()
    _run([*launch.compiler, *words, *ours])
    if patchable and os.path.isfile(output):
        with building.whole_or_removed(output), _errors_for_people(output):
            building.instrument_object(output, name or launch.name(output), launch.chosen)


def _is_instrumented(launch: Launch, source: Source) -> bool:
    return source.language != "other" and not (source.path != "-" and launch.chosen.excludes(launch.name(source.path)))


def _code_words(launch: Launch, language: str) -> tuple[str, ...]:
    """Our words behind those of a compile: how code is made that can be patched. Assembler text is as it is."""
    if language == "assembler":
        return ()
    from . import compiler
    try:
        kept = os.path.join(launch.directory, "compilers")
        flags = compiler.kept_flags(launch.compiler, language, launch.environ, kept, stubs=launch.chosen.stubs)
    except compiler.Unsupported as e:
        raise LauncherError(str(e)) from None
    if compiler.of_a_library((*launch.compiler, *launch.asked.words)):
        flags = compiler.for_library(flags)
    return (*flags, *runtime_build.preprocessor_words(True))


# ---- links -----------------------------------------------------------------------------------------------------


def _compile_and_link(launch: Launch) -> None:
    """One command that does both: as many as the compiler itself would start, with objects that we keep."""
    asked = launch.asked
    output = asked.output or "a.out"
    objects: dict[int, str] = {}
    code = 0
    for source in asked.sources:
        name = _kept_name(launch, output, source, len(objects))
        objects[source.at] = kept = os.path.join(launch.directory, _OBJECTS, name)
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        code = _try_object(launch, source, command_line.compile_words(asked, source, kept), kept, name) or code
    if code:
        raise Ended(code)
    _link(launch, list(objects.values()), [*launch.compiler, *command_line.link_words(asked, objects)])


def _kept_name(launch: Launch, output: str, source: Source, number: int) -> str:
    """What the object of a source is called that is compiled and linked at once: after its image, as GCC does."""
    base = os.path.splitext(os.path.basename(source.path))[0] if source.path != "-" else "stdin"
    twice = sum(os.path.basename(s.path) == os.path.basename(source.path) for s in launch.asked.sources) > 1
    name = f"{launch.name(output)}-{base}{f'-{number}' if twice else ''}.o"
    return name.replace("../", "__/")


def _link(launch: Launch, made: Sequence[str], command: list[str]) -> None:
    """Link, with the runtime if anything is instrumented, and file the image. `made`: objects that we compiled."""
    asked = launch.asked
    inputs = [*made, *asked.inputs]
    archives = [*filter(_is_archive, asked.inputs), *_static_libraries(asked)]
    if asked.bare or not any(map(_is_patchable, {*inputs, *archives})):
        _become(command)
    output = asked.output or "a.out"
    runtime = _runtime(launch)
    end = runtime_build.link_words(runtime[-1], bool(launch.chosen.trusted_keys))
    _run([*command_line.with_symbols(command), *runtime[:-1], *end])
    with building.whole_or_removed(output):
        with _errors_for_people(output):
            _file(launch, output, inputs, archives)
        if command_line.strips(command):        # what is filed keeps its symbols: bundles are made from it
            _run(["strip", "-s", output])


def _static_libraries(asked: Invocation) -> list[str]:
    """The archives that -lNAME means: the first of this name in the directories of -L, as long as no shared one is there."""
    found = []
    for name in asked.libraries:
        here = [folder for folder in asked.directories if os.path.exists(os.path.join(folder, f"lib{name}.a"))
                or os.path.exists(os.path.join(folder, f"lib{name}.so"))]
        path = os.path.join(here[0], f"lib{name}.a") if here else ""
        shared = path and os.path.exists(path.removesuffix("a") + "so") and "-static" not in asked.words
        if path and not shared and _is_archive(path):
            found.append(path)
    return found


def _is_archive(path: str) -> bool:
    """What is called so may be a script for the linker."""
    try:
        with open(path, "rb") as file:
            return file.read(8) in (b"!<arch>\n", b"!<thin>\n")
    except OSError:
        return False


def _is_patchable(path: str) -> bool:
    """Whether an object, or any member of an archive, is instrumented: the name of our section is in the file."""
    import mmap

    from .names import MAP_SECTION
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:8] == b"!<thin>\n":
                from . import archive
                return any(MAP_SECTION.encode() in member.data for member in archive.members(path))
            return data[:4] != b"\x7fELF" or not _is_shared(data[16:18]) if data.find(MAP_SECTION.encode()) >= 0 else False
    except (OSError, ValueError):     # empty, or no regular file: the linker's business
        return False


def _is_shared(elf_type: bytes) -> bool:
    return elf_type == b"\x03\0"       # ET_DYN (System V gABI, chapter 4): patched as an image of its own


def _file(launch: Launch, output: str, inputs: Sequence[str], archives: Sequence[str]) -> None:
    """Keep the image just linked, with what a payload for it needs to know."""
    from . import plainparts
    plain = plainparts.digests([p for p in inputs if p not in archives], archives, launch.name)
    unseen = {} if command_line.can_be_split(launch.asked) else {s.path: s for s in launch.asked.sources}
    link = building.LinkRecord(launch.top, os.path.join(launch.directory, _OBJECTS), launch.compiler,
                               [os.path.abspath(d) for d in launch.asked.directories], [os.path.abspath(a) for a in archives])
    plain.update({launch.name(path): plainparts.unknown() for path in unseen})
    building.file_image(launch.directory, os.path.abspath(output), launch.name(output), plain, link)


# ---- the runtime -----------------------------------------------------------------------------------------------


def _runtime(launch: Launch) -> list[str]:
    """The runtime's objects for this compiler, made once; the archive last."""
    from pathlib import Path
    compiler = _c_compiler(launch.compiler)
    environment = {name: launch.environ[name] for name in _COMPILER_VARIABLES if name in launch.environ}
    sources = runtime_build.sources()
    if not sources:
        raise LauncherError(f"the runtime's sources are missing from {runtime_build.sources_directory()}; "
                            "install scons-hotreload again")
    version = building.digest_of(*(p.read_text() for p in sorted(Path(runtime_build.sources_directory()).rglob("*.[ch]"))))
    keys = _trusted_keys(launch)
    from .compiler import identity
    about = [*compiler, version, identity(compiler, "c", launch.environ)]
    name = runtime_build.configuration(about, launch.chosen.arena, environment, keys)
    shared = launch.environ.get(runtime_build.CACHE)
    folder = os.path.join(shared, "launcher", name) if shared else os.path.join(launch.directory, "runtime", name)
    objects = [os.path.join(folder, f"{source.stem}.o") for source in sources if source.stem != runtime_build.POLL]
    with _locked(launch.directory):
        if not os.path.isdir(folder):
            _make_runtime(runtime_build.compile_command(compiler, launch.chosen.arena, keys), list(map(str, sources)), folder)
    return [*objects, os.path.join(folder, runtime_build.ARCHIVE)]


def _c_compiler(compiler: tuple[str, ...]) -> list[str]:
    """The command for C, by the one that links, which may be for another language."""
    return [*compiler] if os.path.basename(compiler[-1]).rstrip("-.0123456789") in ("gcc", "cc", "clang") else [
        *compiler, "-x", "c"]


def _trusted_keys(launch: Launch) -> list[bytes]:
    """The keys of HOTRELOAD_TRUSTED_KEYS. Builds call the compiler in many directories, so its paths must be absolute."""
    if not launch.chosen.trusted_keys:
        return []
    from . import signature
    relative = [path for path in launch.chosen.trusted_keys if not os.path.isabs(path)]
    if relative:
        raise LauncherError(f"HOTRELOAD_TRUSTED_KEYS: {relative[0]} is not an absolute path")
    try:
        return signature.read_keys(launch.chosen.trusted_keys)
    except (signature.KeyProblem, OSError) as e:
        raise LauncherError(f"HOTRELOAD_TRUSTED_KEYS: {e}") from None


def _make_runtime(command: Sequence[str], sources: Sequence[str], folder: str) -> None:
    """Compile it beside `folder`, which then appears at once."""
    import shutil
    import tempfile
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    scratch = tempfile.mkdtemp(prefix=".making-", dir=os.path.dirname(folder))
    try:
        stems = [os.path.splitext(os.path.basename(source))[0] for source in sources]
        made = {stem: os.path.join(scratch, f"{stem}.o") for stem in stems}
        for source, path in zip(sources, made.values()):
            _run([*command, "-o", path, source])
        _run(["ar", "rcs", os.path.join(scratch, runtime_build.ARCHIVE), made[runtime_build.POLL]])
        os.chmod(scratch, 0o755)
        _appear(scratch, folder)
    except Ended as e:
        raise LauncherError(f"the runtime could not be compiled by {command[0]} (exit code {e.code})") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _appear(scratch: str, folder: str) -> None:
    """Where projects share the runtime, another one may have been quicker: then it is there."""
    try:
        os.rename(scratch, folder)
    except OSError:
        if not os.path.isdir(folder):
            raise


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """One compiler at a time makes the runtime; the system lets go when this process ends."""
    import fcntl
    os.makedirs(os.path.join(directory, "locks"), exist_ok=True)
    with open(os.path.join(directory, "locks", "runtime"), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ---- processes -------------------------------------------------------------------------------------------------


def _become(command: list[str]) -> NoReturn:
    """Go on as the command itself."""
    try:
        os.execvp(command[0], command)
    except OSError as e:
        print(f"hotpatch cc: {command[0]}: {e.strerror}", file=sys.stderr)
        raise Ended(_NOT_FOUND) from None


def _run(command: list[str]) -> None:
    """Run a command to its end, with our streams. Raises Ended unless it exits with 0."""
    try:
        child = os.posix_spawnp(command[0], command, os.environ)
    except OSError as e:
        print(f"hotpatch cc: {command[0]}: {e.strerror}", file=sys.stderr)
        raise Ended(_NOT_FOUND) from None
    try:
        _, status = os.waitpid(child, 0)
    except KeyboardInterrupt:           # the terminal sent it to both of us
        os.waitpid(child, 0)
        raise
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise Ended(code)


def _as_exit_code(code: int) -> int:
    """An exit code; a compiler that died of a signal ends us by the same one."""
    if code >= 0:
        return code
    signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), -code)
    return _SIGNALLED - code


@contextlib.contextmanager
def _errors_for_people(path: str) -> Iterator[None]:
    """What the tool has against an object or an image, every reason of it."""
    from . import errors
    try:
        yield
    except errors.Refused as e:
        raise LauncherError(f"{path}: " + "\n  ".join(map(str, e.refusals))) from e
    except OSError as e:
        raise LauncherError(f"{path}: {errors.system_error(e)}") from e
    except errors.HotreloadError as e:
        raise LauncherError(f"{path}: {e}") from e
