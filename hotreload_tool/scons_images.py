"""The images of a build and the `hotpatch` target: which objects each image is made of, and how it is linked.

The target depends on the objects, never on the images: a hot patch must not relink what runs.
"""
from __future__ import annotations

import fcntl
import os
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, cast

import SCons.Node.Alias
from SCons.Action import Action
from SCons.Errors import BuildError, UserError
from SCons.Scanner import ScannerBase

from . import building, garbage, names, settings, timings
from .request import HotpatchRequest, ImageKind, ImageRequest, LinkRequest, ObjectRequest
from .scons_env import Env, Node, errors_for_people, instruments, process_environment, relative_path, state_directory, words

TARGET, VERIFY, WATCH = "hotpatch", "hotpatch-verify", "hotpatch-watch"
_LINK_VARIABLES = {"program": ("$LINK", "$LINKFLAGS"), "shared": ("$SHLINK", "$SHLINKFLAGS"),
                   "module": ("$LDMODULE", "$LDMODULEFLAGS")}


class Image(NamedTuple):
    """A program or library that an environment with the tool links."""
    node: Node
    env: Env
    kind: ImageKind


class Part(NamedTuple):
    """A node that an image is linked from."""
    node: Node
    from_archive: bool


_images: dict[Node, Image] = {}      # filled while SConscripts are read, in one thread
_tree_lock: list[int] = []           # the descriptor that holds the lock until this process ends


def record(node: Node, env: Env, kind: ImageKind) -> None:
    """Note that `env` links `node`; the hotpatch target takes it from here."""
    _images[node] = Image(node, env, kind)


# ---- the target ------------------------------------------------------------------------------------------------


class HotpatchAlias(SCons.Node.Alias.Alias):    # type: ignore[misc]  # SCons is untyped
    """The alias `hotpatch`. What it depends on is known only when all SConscripts are read: asked for by a scanner."""

    def get_found_includes(self, env: Env, scanner: Any, path: Any) -> list[Node]:
        return [node for image in _images.values() for node in objects(image)]


class WatchAlias(HotpatchAlias):
    """The alias `hotpatch-watch`. It depends on nothing: what does not compile yet is what the session waits for."""

    def get_found_includes(self, env: Env, scanner: Any, path: Any) -> list[Node]:
        return []


def declare_target(env: Env, run: Any, name: str = TARGET) -> None:
    """Make `scons NAME` call `run(target, source, env)`: the session at once, others when all objects of all images are up
    to date."""
    known = SCons.Node.Alias.default_ans
    if isinstance(known.lookup(name), HotpatchAlias):
        return
    if name in known:
        raise UserError(f"hotreload: this build defines a target named {name!r} itself; rename it, or load the tool "
                        "before it is defined")
    known[name] = (WatchAlias if name == WATCH else HotpatchAlias)(name)
    scanner = ScannerBase(_no_includes, name="hotpatch")
    env.AlwaysBuild(env.Alias(known[name], [], Action(run, strfunction=_announce), target_scanner=scanner))


def _no_includes(node: Node, env: Env, path: Any) -> list[Node]:
    return []     # HotpatchAlias.get_found_includes answers


def _announce(target: list[Node], source: list[Node], env: Env) -> str:
    return " ".join([str(target[0]), *sorted(map(str, _images))])


def run_hotpatch(target: list[Node], source: list[Node], env: Env) -> None:
    """The action of the target. Raises BuildError when any image cannot be patched."""
    request = _checked_request(target[0], env)
    with errors_for_people(target[0]), garbage.not_collected():     # SCons holds many objects, and they stay
        from . import hotpatch
        code = hotpatch.run(request)
    if timings.chosen():
        print(timings.report(timings.chosen()))
    if code:
        raise BuildError(node=target[0], errstr="not patched, for the reasons above", status=code)


def run_watch(target: list[Node], source: list[Node], env: Env) -> None:
    """The action of `hotpatch-watch`. Returns when a signal ends it."""
    import SCons.Script
    if list(map(str, SCons.Script.COMMAND_LINE_TARGETS)) != [WATCH]:
        raise BuildError(node=target[0], errstr=f"hotreload: {WATCH} cannot be asked for together with other targets")
    request = _checked_request(target[0], env)
    watched = [node for image in _images.values() for node in objects(image)]
    prefixes = _one_of(target[0], "HOTPATCH_PREFIX", settings.PREFIXES)
    with errors_for_people(target[0]):
        from .watch import start
        start.watch(request, watched, int(env.GetOption("num_jobs")), prefixes)


def _checked_request(node: Node, env: Env) -> HotpatchRequest:
    """What the command line asks for. Raises BuildError."""
    import SCons.Script
    try:
        apply = settings.truth(SCons.Script.ARGUMENTS.get("HOTPATCH_APPLY", "1"))
    except ValueError as e:
        raise BuildError(node=node, errstr=f"hotreload: HOTPATCH_APPLY: {e}") from None
    init = _one_of(node, "HOTPATCH_INIT", settings.INITIALISERS)
    when = _one_of(node, "HOTPATCH_WHEN", settings.MOMENTS)
    request = build_request(env, apply, bool(env.GetOption("silent")), init)
    if not request.images:
        raise BuildError(node=node, errstr="no program of this build is made with the hotreload tool")
    return replace(request, when=when, timeout=_seconds(node, "HOTPATCH_TIMEOUT", request.timeout),
                   guard=_seconds(node, "HOTPATCH_GUARD", request.guard))


def run_verify(target: list[Node], source: list[Node], env: Env) -> None:
    """The action of `hotpatch-verify`. Raises BuildError when a bundle is unsound, or could not be checked, or an edit is
    refused."""
    import SCons.Script
    request = build_request(env, False, bool(env.GetOption("silent")))
    top, directory = env.Dir("#").get_abspath(), request.directory
    junit, sarif = (os.path.join(top, SCons.Script.ARGUMENTS.get(name, os.path.join(directory, default)))
                    for name, default in (("HOTPATCH_JUNIT", "verify.xml"), ("HOTPATCH_SARIF", "verify.sarif")))
    against = [os.path.join(top, word) for word in SCons.Script.ARGUMENTS.get("HOTPATCH_AGAINST", "").split(":") if word]
    missing = [path for path in against if not os.path.isfile(path)]
    if missing:
        raise BuildError(node=target[0], errstr=f"hotreload: HOTPATCH_AGAINST: {missing[0]}: no such file")
    with errors_for_people(target[0]):
        from pathlib import Path

        from .verify import tree
        os.makedirs(directory, exist_ok=True)
        code = tree.run(request, Path(junit), Path(sarif), [Path(path) for path in against])
    if code:
        raise BuildError(node=target[0], errstr="not verified, for the reasons above", status=code)


def _one_of(node: Node, name: str, values: tuple[str, ...]) -> str:
    """An argument of the command line that is one of `values`, the first one if it is not given. Raises BuildError."""
    import SCons.Script
    value = str(SCons.Script.ARGUMENTS.get(name, values[0]))
    if value not in values:
        raise BuildError(node=node, errstr=f"hotreload: {name}={value}: use one of {', '.join(values)}")
    return value


def _seconds(node: Node, name: str, default: float) -> float:
    """An argument of the command line in seconds, `default` if it is not given. Raises BuildError."""
    import SCons.Script
    text = SCons.Script.ARGUMENTS.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 3600.0:
        raise BuildError(node=node, errstr=f"hotreload: {name}={text}: a number of seconds above 0 and up to 3600")
    return value


def refuse_hotpatch(target: list[Node], source: list[Node], env: Env) -> None:
    """The action of the target under HOTRELOAD=0."""
    raise BuildError(node=target[0], errstr="HOTRELOAD=0 turns the tool off: there is nothing to patch")


def lock_tree(env: Env) -> None:
    """Let one `scons hotpatch` at a time build in this tree; a second one waits here until the first has ended.

    The lock is on the top directory itself, so nothing is written for it; the system lets go when the process ends.
    """
    if _tree_lock:
        return
    descriptor = os.open(env.Dir("#").get_abspath(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _tree_lock.append(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not env.GetOption("silent"):
            print("hotreload: waiting for another `scons hotpatch` in this directory", file=sys.stderr, flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


# ---- what an image is made of ----------------------------------------------------------------------------------


def parts(image: Image) -> Iterator[Part]:
    """What `image` is linked from, archives opened up, each node once; the tool's own runtime left out.

    Other images (shared libraries it is linked with) are not entered: they are patched as images of their own.
    """
    seen: set[Node] = set()
    waiting = deque(Part(node, False) for node in [*image.node.sources, *_found_libraries(image)])
    archive = image.env.subst("$LIBSUFFIX") or ".a"           # once: it takes longer than all else here
    while waiting:
        part = waiting.popleft()
        if part.node in seen or getattr(part.node.attributes, "hotreload_runtime", False):
            continue
        seen.add(part.node)
        if str(part.node).endswith(archive):
            waiting.extendleft(Part(node, True) for node in reversed(part.node.sources))
        else:
            yield part


def _found_libraries(image: Image) -> list[Node]:
    """The files that SCons finds for LIBS in LIBPATH, as it does when it looks for dependencies of the link."""
    scanner = image.node.get_target_scanner()
    if scanner is None:
        return []
    env = image.node.get_build_env()
    return cast("list[Node]", scanner(image.node, env, scanner.path(env, image.node.cwd)))


def objects(image: Image) -> list[Node]:
    """Those parts that are objects."""
    ends = _object_suffixes(image.env)
    return [part.node for part in parts(image) if str(part.node).endswith(ends)]


def _object_suffixes(env: Env) -> tuple[str, str]:
    return env.subst("$OBJSUFFIX") or ".o", env.subst("$SHOBJSUFFIX") or ".os"


# ---- the request -----------------------------------------------------------------------------------------------


def sorted_images() -> list[ImageRequest]:
    """All images that can be patched: those of excluded sources only have no baseline, and are left out."""
    patchable = [image for image in _images.values() if any(_is_instrumented(part.node) for part in parts(image))]
    return sorted((_image_request(image) for image in patchable), key=lambda image: image.name)


def _is_instrumented(node: Node) -> bool:
    return bool(node.has_builder()) and instruments(node.get_build_env(), node.sources)


def plain_objects(node: Node) -> dict[str, str]:
    """What the uninstrumented objects of an image are: object -> digest."""
    image = _images.get(node)
    found = [node for node in objects(image) if not _is_instrumented(node)] if image else []
    return building.plain_objects({relative_path(image.env, n): n.get_abspath() for n in found if image})


def note_objects(node: Node) -> None:
    """Let what the objects of an image are be known, so that a patch need not read those that stayed as they are."""
    image = _images.get(node)
    if image is None:
        return
    from . import baseline, objectmaps
    objectmaps.note(baseline.Store(state_directory(image.env)), [node.get_abspath() for node in objects(image)])


def link_record(node: Node) -> building.LinkRecord | None:
    """How an image is linked, for `hotpatch bundle`."""
    image = _images.get(node)
    if image is None:
        return None
    env = image.node.get_build_env()
    top = str(env.Dir("#").get_abspath())
    link = _link_request(image, env, [])
    directories = [os.path.join(top, d.removeprefix("-L")) for d in link.libpath]
    return building.LinkRecord(top, state_directory(env) + "/objects", link.driver, directories, [])


def build_request(env: Env, apply: bool, silent: bool, init: str = "merge") -> HotpatchRequest:
    """The whole tree as plain data, for `hotpatch.run`."""
    return HotpatchRequest(top=env.Dir("#").get_abspath(), directory=state_directory(env),
                           images=[replace(image, init=init) for image in sorted_images()], apply=apply, silent=silent)


def _image_request(image: Image) -> ImageRequest:
    env = image.node.get_build_env()
    ends = _object_suffixes(env)
    found: list[ObjectRequest] = []
    others: list[str] = []
    for node, from_archive in parts(image):
        if str(node).endswith(ends):
            found.append(ObjectRequest(names.object_name(relative_path(env, node)), node.get_abspath(), from_archive))
        else:
            others.append(node.get_path())
    return ImageRequest(relative_path(env, image.node), image.node.get_abspath(), image.kind, found,
                        _link_request(image, env, others))


def _link_request(image: Image, env: Env, others: list[str]) -> LinkRequest:
    driver, flags = _LINK_VARIABLES[image.kind]
    around = {"target": [image.node], "source": image.node.sources}
    libraries = env.Override({"_HOTRELOAD_LIBFLAGS": ""})
    return LinkRequest(driver=words(env, driver, **around), cc=words(env, "$CC"), cxx=words(env, "$CXX"),
                       libs=words(libraries, "$_LIBFLAGS", **around), libpath=words(env, "$_LIBDIRFLAGS", **around),
                       flags=words(env, flags, **around), sources=others,
                       environment=process_environment(env))
