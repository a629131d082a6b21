"""The runtime's objects as SCons nodes: compiled by the user's compiler, once for each configuration.

They are declared targets under `$HOTRELOAD_DIR/runtime/HASH/`, built in an environment of their own, so that no flag
of the user's reaches them; they are never instrumented.
"""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import SCons.Environment
import SCons.Tool
from SCons.Action import Action
from SCons.Errors import UserError

from . import compiler, runtime_build
from .runtime_build import sources_directory
from .scons_env import Env, Node, process_environment, state_directory, words
from .settings import Settings

_built: dict[tuple[int, str, str], "RuntimeNodes"] = {}     # SCons reads SConscripts in one thread


class RuntimeNodes(NamedTuple):
    objects: list[Node]    # go into every image
    archive: Node          # libhotreload_poll.a, at the end of the libraries


def c_compiler(env: Env) -> list[str]:
    """The command for C: $CC, else $CXX told to read C."""
    return words(env, "$CC") or [*words(env, "$CXX"), "-x", "c"]


def flags_of(command: list[str], language: str, env: Env, stubs: str = "plt") -> tuple[str, ...]:
    """`compiler.kept_flags` for an environment. Raises UserError."""
    option = getattr(env, "GetOption", lambda name: True)          # not there without the program `scons`
    writes = not (option("no_exec") or option("question"))
    kept = os.path.join(state_directory(env), "compilers")
    try:
        return compiler.kept_flags(command, language, process_environment(env), kept, writes, stubs)
    except compiler.Unsupported as e:
        raise UserError(f"hotreload: {e}") from None


def nodes(env: Env, settings: Settings) -> RuntimeNodes:
    """The runtime for images of `env`. The same configuration gives the same nodes."""
    compiler = c_compiler(env)
    keys = trusted_keys(env, settings)
    name = runtime_build.configuration(compiler, settings.arena, process_environment(env), keys)
    key = (id(env.fs), settings.directory, name)
    if key not in _built:
        _built[key] = _declare(env, compiler, settings.arena, f"{settings.directory}/runtime/{name}", keys)
    return _built[key]


def trusted_keys(env: Env, settings: Settings) -> list[bytes]:
    """The keys of HOTRELOAD_TRUSTED_KEYS. Raises UserError."""
    if not settings.trusted_keys:
        return []
    from . import signature
    try:
        return signature.read_keys([env.File(path, "#").get_abspath() for path in settings.trusted_keys])
    except (signature.KeyProblem, OSError) as e:
        raise UserError(f"hotreload: HOTRELOAD_TRUSTED_KEYS: {e}") from None


def _declare(env: Env, compiler: list[str], arena: int, directory: str, keys: list[bytes]) -> RuntimeNodes:
    sources = runtime_build.sources()
    if not sources:
        raise UserError(f"hotreload: the runtime's sources are missing from {sources_directory()}; "
                        "install scons-hotreload again")
    clean = SCons.Environment.Environment(tools=[], ENV=dict(env["ENV"]), CPPPATH=[sources_directory()],
                                          HOTRELOAD_COMPILER=compiler)
    _share(clean)
    command = [*runtime_build.compile_command(compiler, arena, keys), "-o", "$TARGET", "$SOURCE"]
    compile_one = Action([Action(_check_compiler, strfunction=None),
                          Action([command], "Compiling hotreload runtime $TARGET")])
    objects = {source.stem: _object(clean, source, directory, compile_one) for source in sources}
    archiver = words(env, "$AR") or ["ar"]
    collect = Action([[*archiver, "rcs", "$TARGET", "$SOURCES"]], "Archiving hotreload runtime $TARGET")
    archive = clean.Command(f"{directory}/{runtime_build.ARCHIVE}", [objects.pop(runtime_build.POLL)], collect)[0]
    return RuntimeNodes(list(objects.values()), archive)


def _share(env: Env) -> None:
    """Take the runtime's objects from where projects share them, if the user says so. Raises UserError."""
    shared = os.environ.get(runtime_build.CACHE)
    if not shared:
        return
    try:
        os.makedirs(shared, exist_ok=True)
        env.CacheDir(shared)
    except Exception as e:           # what locks and directories of SCons raise depends on its version
        raise UserError(f"hotreload: {runtime_build.CACHE}: {shared} cannot be used: {e}; remove it, or unset the "
                        "variable") from e


def _check_compiler(target: list[Node], source: list[Node], env: Env) -> None:
    """Say what is wrong with an unsupported compiler before it fails on our sources in its own way."""
    try:
        compiler.flags(env["HOTRELOAD_COMPILER"], "c", process_environment(env))
    except compiler.Unsupported as e:
        raise UserError(f"hotreload: {e}") from None


def _object(clean: Env, source: Path, directory: str, action: Any) -> Node:
    node = clean.Command(f"{directory}/{source.stem}.o", clean.File(str(source)), action,
                         source_scanner=SCons.Tool.SourceFileScanner)[0]
    node.attributes.shared = True      # position-independent: good for programs and libraries
    node.attributes.hotreload_runtime = True
    return node
