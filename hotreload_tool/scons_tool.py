"""The SCons tool: what loading `hotreload` changes in an environment.

- compiles get `$HOTRELOAD_CCFLAGS`, and one more action behind the compiler's that instruments the object;
- links of programs and libraries get the runtime, and one more action that files the linked image as a baseline;
- there is a target `hotpatch`.

Builders are shared between an environment and its clones, also those that never asked for the tool. So whatever is
hung into a builder asks the environment of each target first, and is not there for one without the tool.
This module is imported at every start of a build: nothing heavy may be imported here, only inside actions.
"""
from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import SCons.Tool
import SCons.Tool.cc
from SCons.Action import CommandGeneratorAction, FunctionAction
from SCons.Builder import ListEmitter
from SCons.Errors import UserError
from SCons.Tool.cxx import CXXSuffixes
from SCons.Util import CLVar

from . import building, compiler, runtime_build, scons_images, scons_runtime, settings, timings
from .request import ImageKind
from .scons_env import (
    Env,
    Node,
    Nodes,
    active,
    checked,
    errors_for_people,
    instruments,
    process_environment,
    relative_path,
    state_directory,
    words,
)
from .settings import SettingError

_PROGRAM_FLAGS, _LIBRARY_FLAGS = "$CFLAGS $CXXFLAGS $CCFLAGS", "$SHCFLAGS $SHCXXFLAGS $SHCCFLAGS"
_COMPILES = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "CCFLAGS", "SHCFLAGS", "SHCXXFLAGS", "SHCCFLAGS")
_VARIABLE = re.compile(r"\$\{?(\w*)")
_COMPILE_HOOK = " $HOTRELOAD_CCFLAGS $_HOTRELOAD_CPPFLAGS"
_LINK_HOOK = " $_HOTRELOAD_LIBFLAGS"
# All that is in HOTRELOAD_DIR.
_STATE = ("baselines", "chains", "compilers", "locks", "objectmaps.json", "objects", "payloads", "prefixes",
          "programs", "runtime")
# The modules that make an instrumented object of a compiled one.
INSTRUMENTING = ("__init__", "arch/__init__", "arch/x86_64", "building", "calls", "debuginfo", "digest", "dwarf", "elf",
                 "errors", "heads", "instrument", "names", "objectmap", "settings", "survey", "timings", "typetext", "unwind")
_helped: list[bool] = []
_known_flags: dict[tuple[Any, ...], list[str]] = {}       # of `_code_flags`


# ---- loading ---------------------------------------------------------------------------------------------------


def exists(env: Env) -> bool:
    """Whether there is a compiler to work with."""
    return bool(env.get("CC") or env.get("CXX") or env.Detect(["gcc", "clang", "cc"]))


def generate(env: Env, **kw: Any) -> None:
    """Add the tool to `env`. May run again for the same environment or a clone: each step is done once.

    Runs under -h, -n and -c as well: nothing is written or printed, no process is started. Raises UserError.
    """
    _refuse_foreign_platform(env)
    arguments = _arguments()
    _define_variables(env, arguments, kw)
    _hook_compiles(env)
    _add_help()
    if not _switched_on(arguments):
        env["_HOTRELOAD_SIGNATURE"] = ""       # what says that the tool works here; no target can switch it on again
        scons_images.declare_target(env, scons_images.refuse_hotpatch)
        scons_images.declare_target(env, scons_images.refuse_hotpatch, scons_images.VERIFY)
        scons_images.declare_target(env, scons_images.refuse_hotpatch, scons_images.WATCH)
        return
    _hook_links(env)
    scons_images.declare_target(env, scons_images.run_hotpatch)
    scons_images.declare_target(env, scons_images.run_verify, scons_images.VERIFY)
    scons_images.declare_target(env, scons_images.run_watch, scons_images.WATCH)
    if _asked_for(env, scons_images.WATCH):
        from .watch import start
        start.prepare()
    if _asked_for(env, scons_images.TARGET, scons_images.VERIFY):
        scons_images.lock_tree(env)
        if timings.chosen():
            timings.begin()


def _refuse_foreign_platform(env: Env) -> None:
    if not sys.platform.startswith("linux") or os.uname().machine not in ("x86_64", "amd64"):
        raise UserError("hotreload: this version works on Linux on x86-64 only")
    if not exists(env):
        raise UserError(f"hotreload: neither gcc nor clang is on the build's PATH ({env['ENV'].get('PATH', '')}); "
                        "install one, or set CC")


def _arguments() -> dict[str, str]:
    """What stands on the command line as NAME=VALUE; nothing where SCons is used as a library."""
    script = sys.modules.get("SCons.Script")
    return dict(script.ARGUMENTS) if script else {}


def _switched_on(arguments: dict[str, str]) -> bool:
    try:
        return settings.truth(arguments.get("HOTRELOAD", "1"))
    except ValueError as e:
        raise UserError(f"hotreload: HOTRELOAD: {e}") from None


def _define_variables(env: Env, arguments: dict[str, str], keywords: dict[str, Any]) -> None:
    try:
        values = settings.collect(env, arguments, keywords)
        settings.check(values)
    except SettingError as e:
        raise UserError(str(e)) from None
    for name, value in values.items():
        env[name] = list(value) if isinstance(value, tuple) else value
    env.SetDefault(HOTRELOAD_CCFLAGS=CLVar("$_HOTRELOAD_CODEFLAGS"))
    env["_HOTRELOAD_CODEFLAGS"] = _code_flags
    env["_HOTRELOAD_CPPFLAGS"] = _preprocessor_flags
    env["_HOTRELOAD_LIBFLAGS"] = _library_flags
    env["_HOTRELOAD_SIGNATURE"] = tool_signature()


@functools.cache
def tool_signature() -> str:
    """Digest of what makes an object of ours: another version of that must instrument every object again. Of the rest of
    the tool no object depends; the runtime's own objects are targets with sources."""
    here, runtime = Path(__file__).parent, Path(runtime_build.sources_directory())
    digest = hashlib.blake2b(digest_size=16)
    for path in (*(here / f"{name}.py" for name in INSTRUMENTING), runtime / "hotreload.h"):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _add_help() -> None:
    script = sys.modules.get("SCons.Script")
    if script is None or _helped:
        return
    _helped.append(True)
    accepted = inspect.signature(script.HelpFunction).parameters     # the name changed in SCons 4.6 and 4.9
    local = next((name for name in ("local_only", "keep_local") if name in accepted), None)
    # Without it, append=True would put all of SCons' own options before our lines.
    script.HelpFunction(settings.help_text(), append=bool(local), **({local: True} if local else {}))


def _asked_for(env: Env, *targets: str) -> bool:
    """Whether this run of SCons builds one of the tool's targets."""
    script = sys.modules.get("SCons.Script")
    if script is None or not set(targets) & set(script.COMMAND_LINE_TARGETS):
        return False
    return not any(env.GetOption(option) for option in ("no_exec", "clean", "help", "interactive"))


# ---- compiles --------------------------------------------------------------------------------------------------


def _hook_compiles(env: Env) -> None:
    SCons.Tool.cc.add_common_cc_variables(env)
    _append_once(env, "_CCCOMCOM", _COMPILE_HOOK)
    for builder in SCons.Tool.createObjBuilders(env):
        _follow(builder, _after_compile)


def _append_once(env: Env, variable: str, hook: str) -> None:
    if hook not in env.get(variable, ""):
        env[variable] = env.get(variable, "") + hook


def _code_flags(target: Nodes, source: Nodes, env: Env, for_signature: bool) -> list[str]:
    """$_HOTRELOAD_CODEFLAGS: how the compiler of this source is told to make code that can be patched."""
    if not active(env):
        return []
    is_cxx = bool(source) and os.path.splitext(str(source[0]))[1] in CXXSuffixes
    shared = bool(target) and bool(getattr(target[0].attributes, "shared", False))
    given = tuple(str(env.get(name, "")) for name in _COMPILES)
    if any(name not in _COMPILES for value in given for name in _VARIABLE.findall(value)):
        return _found_flags(env, is_cxx, shared)
    # SCons asks twice for each object, nearly always with the same variables.
    known = (is_cxx, shared, given, env["HOTRELOAD_DIR"], str(env["HOTRELOAD_STUBS"]), *process_environment(env).items())
    if known not in _known_flags:
        _known_flags[known] = _found_flags(env, is_cxx, shared)
    return list(_known_flags[known])


def _found_flags(env: Env, is_cxx: bool, shared: bool) -> list[str]:
    command = words(env, "$CXX" if is_cxx else "$CC")
    if not command:
        return []
    found = scons_runtime.flags_of(command, "c++" if is_cxx else "c", env, checked(env).stubs)
    asked = words(env, _LIBRARY_FLAGS if shared else _PROGRAM_FLAGS)
    return list(compiler.for_library(found) if compiler.of_a_library([*command, *asked]) else found)


def _preprocessor_flags(target: Nodes, source: Nodes, env: Env, for_signature: bool) -> list[str]:
    """$_HOTRELOAD_CPPFLAGS: lets programs include <hotreload.h>, also with HOTRELOAD=0, where it declares no-ops.

    Searched last, so that no header of ours hides one of the user's or the system's.
    """
    if env.get("SCONF_NODE"):
        return []
    *define, option, directory = runtime_build.preprocessor_words(active(env))
    return [*define, "$(", option, directory, "$)"]


def _after_compile(env: Env, source: Nodes) -> Any:
    return INSTRUMENT if instruments(env, source) else None


def instrument_object(target: Nodes, source: Nodes, env: Env) -> None:
    """Rewrite the object that the compiler has just written. Runs on a build thread. Raises BuildError."""
    with _whole_or_removed(target[0]):
        building.instrument_object(target[0].get_abspath(), relative_path(env, target[0]), checked(env),
                                   _headers_digest(target[0]))


@contextlib.contextmanager
def _whole_or_removed(node: Node) -> Iterator[None]:
    """Removes what was made so far when anything fails.

    A file left behind would be taken for a good one as soon as its sources are again what SCons last built it from.
    """
    with building.whole_or_removed(node.get_abspath()), errors_for_people(node):    # not node.remove(), which would ask
        yield                                                                        # what SCons knew before the build


def _headers_digest(node: Node) -> str | None:
    """Digest over the headers `node` was compiled with, by content; None if the build does not know them."""
    if node.implicit is None:
        return None
    commands = set(node.get_executor().get_implicit_deps())     # the compiler itself, of which the map tells otherwise
    headers = {str(dep): dep.get_csig() for dep in node.implicit if dep not in commands}
    return building.headers_digest(headers)


# ---- links -----------------------------------------------------------------------------------------------------


def _hook_links(env: Env) -> None:
    _append_once(env, "_LIBFLAGS", _LINK_HOOK)
    kinds: tuple[tuple[Any, ImageKind], ...] = (
        (SCons.Tool.createProgBuilder(env), "program"),
        (SCons.Tool.createSharedLibBuilder(env), "shared"),
        (SCons.Tool.createLoadableModuleBuilder(env), "module"))
    for builder, kind in kinds:
        _follow(builder, _after_link)
        _emit(builder, kind)


def _emit(builder: Any, kind: ImageKind) -> None:
    """Put our emitter behind the builder's own. In the builder, not in PROGEMITTER: it survives overrides."""
    if any(isinstance(emitter, _ImageEmitter) for emitter in getattr(builder.emitter, "data", ())):
        return
    before = [builder.emitter] if builder.emitter else []
    builder.emitter = ListEmitter([*before, _ImageEmitter(kind)])


class _ImageEmitter:
    """Gives each image the runtime's objects, and tells the hotpatch target of it."""

    def __init__(self, kind: ImageKind) -> None:
        self.kind = kind

    def __call__(self, target: Nodes, source: Nodes, env: Env) -> tuple[Nodes, Nodes]:
        if not active(env):
            return target, source
        _append_once(env, "_LIBFLAGS", _LINK_HOOK)     # a linker tool loaded after us has set it anew
        runtime = scons_runtime.nodes(env, checked(env))
        target[0].attributes.hotreload_archive = runtime.archive
        env.Depends(target[0], runtime.archive)
        _clean_state(env, target[0])
        scons_images.record(target[0], env, self.kind)
        return target, [*source, *(node for node in runtime.objects if node not in source)]


def _clean_state(env: Env, image: Node) -> None:
    """`scons -c` of the whole tree removes the tool's state too; `scons -c NAME` leaves what others need.

    A directory that somebody else keeps files in stays, without what is ours.
    """
    script = sys.modules.get("SCons.Script")
    if not script or not env.GetOption("clean") or not set(script.COMMAND_LINE_TARGETS) <= {"."}:
        return
    directory = env.Dir(checked(env).directory)
    there = set(os.listdir(directory.get_abspath())) if os.path.isdir(directory.get_abspath()) else set()
    ours = [directory] if there <= set(_STATE) else [directory.Entry(name) for name in _STATE]
    env.Clean(image, ours)


def _library_flags(target: Nodes, source: Nodes, env: Env, for_signature: bool) -> list[Any]:
    """$_HOTRELOAD_LIBFLAGS, at the end of the link line: the build-id, and what the runtime needs."""
    archive = getattr(target[0].attributes, "hotreload_archive", None) if target else None
    if archive is None:
        return []
    return runtime_build.link_words(str(archive), signed=bool(checked(env).trusted_keys))


def _after_link(env: Env, source: Nodes) -> Any:
    return FILE_BASELINE if active(env) else None


def file_baseline(target: Nodes, source: Nodes, env: Env) -> None:
    """Keep a copy of the image just linked, under its build-id. Runs on a build thread. Raises BuildError.

    An image without any instrumented object (all its sources are excluded) cannot be patched, so it is not kept.
    """
    with _whole_or_removed(target[0]):
        building.file_image(state_directory(env), target[0].get_abspath(), relative_path(env, target[0]),
                            scons_images.plain_objects(target[0]), scons_images.link_record(target[0]))
        scons_images.note_objects(target[0])


# ---- one more action behind a builder's own --------------------------------------------------------------------


class _Following:
    """Generates a builder's action: the original one, and behind it what `choose(env, source)` gives, if anything."""

    def __init__(self, original: Any, choose: Any) -> None:
        self.original = original
        self.choose = choose

    def __call__(self, target: Nodes, source: Nodes, env: Env, for_signature: bool) -> Any:
        following = self.choose(env, source)
        return [self.original, following] if following else self.original


def _follow(builder: Any, choose: Any) -> None:
    builder = getattr(builder, "builder", builder)     # a builder with an action for each suffix is wrapped in another
    action = builder.action
    if not isinstance(getattr(action, "generator", None), _Following):
        builder.action = CommandGeneratorAction(_Following(action, choose), {})


class _Silent(FunctionAction):     # type: ignore[misc]  # SCons is untyped
    """A function action that prints nothing, whose signature is what `describe(env)` says, not the function's code."""

    def __init__(self, function: Any, describe: Callable[[Env], str]) -> None:
        super().__init__(function, {"strfunction": None, "varlist": ()})
        self.describe = describe

    def get_presig(self, target: Nodes, source: Nodes, env: Env, executor: Any = None) -> bytes:
        return self.describe(env).encode()

    def __str__(self) -> str:
        return str(self.function_name())     # for --debug=explain and --debug=presub


def _instrument_signature(env: Env) -> str:
    chosen = checked(env)
    return f"instrument stubs={chosen.stubs} pad={chosen.pad} tool={env['_HOTRELOAD_SIGNATURE']}"


def _baseline_signature(env: Env) -> str:
    return f"baseline {checked(env).directory}"     # the runtime's objects are sources: a new tool links anew


INSTRUMENT = _Silent(instrument_object, _instrument_signature)
FILE_BASELINE = _Silent(file_baseline, _baseline_signature)
