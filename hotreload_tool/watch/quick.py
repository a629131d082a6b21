"""Edits that go live before the build's own compile is done: with what the compiler made of their includes before.

The build's objects stay the build's business: SCons compiles as always, right behind. What went live is compared with
that, and where it differs, the next generation corrects it. After each compile a prefix is made and tried in the
background, at low priority. All of it is an offer: whenever anything is not as expected, SCons comes first.
"""
from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import re
import shlex
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from .. import building, command_line, instrument
from ..errors import HotreloadError
from ..objectmap import ObjectMap
from ..prefix import inputs
from ..prefix.session import LOW, Attempt, Prefixes
from ..prefix.text import Unsuitable
from ..prefix.unit import Command, unit_of
from ..request import HotpatchRequest, ImageRequest
from ..scons_env import Node, checked, instruments, relative_path
from ..stamp import Stamp, stamp

FOLDER = "prefixes"                 # in HOTRELOAD_DIR
WORTH_SECONDS = 0.25                # a compile that is quicker has no prefix: there is nothing to gain
_SETTLED_SECONDS = 2 * inputs.COARSE_NS / 1e9       # then what was just saved can be told from what is written meanwhile
_SHELL = re.compile(r"[<>|&;$`*?()\n\\~]")
_DAMAGE = (HotreloadError, OSError, Unsuitable)


class Compile(NamedTuple):
    """How SCons compiled an object last."""
    command: Command
    seconds: float
    made_of: dict[str, Stamp | None]         # files that SCons knows it to be made of, as they were before


class _Job(NamedTuple):
    """A prefix to be made and tried."""
    node: Node
    compiled: Compile
    described: ObjectMap                     # of what it made

    def is_overtaken(self) -> bool:
        """Whether what it was made of was saved since: an object made now could not be compared with it."""
        return any(stamp(path) != before for path, before in self.compiled.made_of.items())


class Compiles:
    """The commands that SCons starts, as they come by."""

    def __init__(self) -> None:
        self.last: dict[str, Compile] = {}       # absolute path of what was compiled
        self._made_of: dict[str, dict[str, Stamp | None]] = {}

    def follow(self, node: Node) -> None:
        """Take note of the commands that make `node`, which is about to be made. Its environment may be many nodes'."""
        self._made_of[node.get_abspath()] = {path: stamp(path) for child in node.children(scan=0) if hasattr(child, "rfile")
                                             for path in [child.rfile().get_abspath()]}
        env = node.get_build_env()
        spawn = env.get("SPAWN")
        if not callable(spawn) or isinstance(spawn, _Spawn):
            return
        env["SPAWN"] = _Spawn(spawn, self)

    def note(self, words: Sequence[str], env: Mapping[str, str], seconds: float) -> None:
        text = " ".join(words)
        if _SHELL.search(text):
            return
        with contextlib.suppress(ValueError):
            argv = list(command_line.open_response_files(shlex.split(text)))
            asked = command_line.parse(argv[1:])
            if asked.compile_only and asked.output is not None:
                output = os.path.abspath(asked.output)
                self.last[output] = Compile(Command.of(argv, os.getcwd(), env), seconds, self._made_of.pop(output, {}))


class _Spawn:
    """An environment's SPAWN, overheard."""

    def __init__(self, original: Callable[..., int], heard: Compiles) -> None:
        self._original, self._heard = original, heard

    def __call__(self, shell: str, escape: Any, command: str, words: list[str], env: dict[str, str]) -> int:
        begun = time.monotonic()
        code = self._original(shell, escape, command, words, env)
        self._heard.note(words, env, time.monotonic() - begun)
        return code


@dataclass
class Ahead:
    """An object that was made before SCons made it."""
    node: Node
    attempt: Attempt
    described: ObjectMap


def _with(image: ImageRequest, places: Mapping[str, str]) -> ImageRequest:
    """The image with objects, by name, at other places."""
    changed = {name: replace(image.by_name[name], path=path) for name, path in places.items() if name in image.by_name}
    return replace(image, objects=[changed.get(o.name, o) for o in image.objects]) if changed else image


class Quick:
    """The prefixes of a watching session. `say`: prints a line. `always`: however little there is to gain, and at once."""

    def __init__(self, request: HotpatchRequest, n_jobs: int, say: Callable[[str], None], always: bool = False) -> None:
        self._prefixes = Prefixes(os.path.join(request.directory, FOLDER), low=0 if always else LOW)
        self._folder = os.path.join(self._prefixes.folder, "objects")
        os.makedirs(self._folder)
        self._request, self._n_jobs, self._say = request, n_jobs, say
        self._worth = 0.0 if always else WORTH_SECONDS
        self.compiles = Compiles()
        self.whole: dict[str, str] = {}          # objects that the last call of `make` could not make: why, for people
        self._edited: set[Node] = set()          # objects whose source somebody works on
        self._waiting: queue.Queue[_Job | None] = queue.Queue()
        self._ended = threading.Event()
        self._worker = threading.Thread(target=self._prepare_all, daemon=True)
        self._worker.start()

    def close(self) -> None:
        """End what runs in the background, and remove all files."""
        self._ended.set()
        self._waiting.put(None)
        self._prefixes.close()
        self._worker.join()

    # ---- before SCons -----------------------------------------------------------------------------

    def make(self, nodes: Sequence[Node], changed: Collection[str], known: Callable[[Node], ObjectMap | None]) -> list[Ahead]:
        """Objects of all of `nodes`, or nothing, and then `whole` says why. `known`: a node's present map. `changed`: what was
        saved, absolute."""
        self.whole.clear()
        for node in nodes:
            if why := self._unready(node, changed):
                self.whole[str(node)] = why
                return []
        with ThreadPoolExecutor(self._n_jobs) as pool:
            made = list(pool.map(self._make, nodes, map(known, nodes)))
        return [ahead for ahead in made if ahead] if all(made) else []

    def _unready(self, node: Node, changed: Collection[str]) -> str:
        """Why `node` cannot be made ahead; "" if it looks as if it can be."""
        last = self.compiles.last.get(node.get_abspath())
        if last is None:
            return "this session has seen no plain command that makes it"
        if len(node.sources) != 1 or node.sources[0].has_builder():
            return "its source is built itself"
        source = node.sources[0].srcnode().get_abspath()
        if source not in changed:
            return "one of its headers was saved"
        if last.seconds < self._worth:
            return f"the compiler takes no more than {1000 * last.seconds:.0f} ms for it"
        try:
            if not os.path.samefile(source, unit_of(last.command).path):
                return "it is compiled from a copy"
        except _DAMAGE as e:
            return str(e)
        if not self._prefixes.is_ready(last.command):
            return self._prefixes.why(last.command) or "its includes are not compiled yet"
        return ""

    def _make(self, node: Node, before: ObjectMap | None) -> Ahead | None:
        command, output = self.compiles.last[node.get_abspath()].command, self._place(node, "ahead")
        attempt = self._prefixes.compile(command, output)
        if attempt is None:
            self.whole[str(node)] = self._prefixes.why(command)
        elif attempt.succeeded and before is not None:
            described = self._instrumented(node, output, before.headers)
            return Ahead(node, attempt, described) if described else None
        return None

    def _place(self, node: Node, what: str) -> str:
        return os.path.join(self._folder, f"{hashlib.sha1(os.fsencode(node.get_abspath())).hexdigest()}.{what}.o")

    def _instrumented(self, node: Node, path: str, headers: str | None) -> ObjectMap | None:
        env = node.get_build_env()
        if not instruments(env, node.sources):
            return None
        with contextlib.suppress(*_DAMAGE):
            building.instrument_object(path, relative_path(env, node), checked(env), headers)
            return instrument.carried_map(path)
        return None

    def request(self, ahead: Iterable[Ahead]) -> HotpatchRequest:
        """What is asked for, with these objects in place of the build's."""
        places = {each.described.object: each.attempt.output for each in ahead}
        return replace(self._request, images=[_with(image, places) for image in self._request.images])

    # ---- after SCons ------------------------------------------------------------------------------

    def compare(self, ahead: Iterable[Ahead], plain: Mapping[Node, ObjectMap | None]) -> bool:
        """Whether all that went live ahead is what SCons made. `plain`: their maps, none of what did not compile."""
        equal = True
        for each in ahead:
            theirs = plain.get(each.node)
            verdict = self._prefixes.judge(each.attempt, each.described, theirs)
            equal &= verdict.agrees
            if verdict.reason:
                then = "what the build made goes live now" if theirs else "what is live of it stays until it compiles"
                self._say(f"{each.node}: with its includes compiled before it was not what the build makes ({verdict.reason}); "
                          f"{then}; from now on it is compiled as a whole")
        return equal

    def learn(self, built: Iterable[Node], changed: Collection[str], described: Callable[[Node], ObjectMap | None]) -> None:
        """SCons has made these objects: compile in the background the includes of those that somebody works on. `changed`: what
        was saved, absolute."""
        for node in built:
            last = self.compiles.last.get(node.get_abspath())
            if last is None or last.seconds < self._worth or len(node.sources) != 1:
                continue
            if node.sources[0].srcnode().get_abspath() in changed:
                self._edited.add(node)
            if node in self._edited and (carried := described(node)) is not None:
                self._waiting.put(_Job(node, last, carried))

    def _prepare_all(self) -> None:
        while (job := self._waiting.get()) is not None:
            if self._ended.wait(_SETTLED_SECONDS):
                return
            with contextlib.suppress(*_DAMAGE):
                self._prepare(job)

    def _prepare(self, job: _Job) -> None:
        node, command = job.node, job.compiled.command
        if not self._prefixes.prepare(command) or self._prefixes.is_ready(command) or job.is_overtaken():
            return
        output = self._place(node, "trial")
        attempt = self._prefixes.compile(command, output, trial=True)
        if attempt is not None and not job.is_overtaken():
            described = self._instrumented(node, output, job.described.headers) if attempt.succeeded else None
            self._prefixes.judge(attempt, described, job.described)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(output)
