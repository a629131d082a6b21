"""The part of a resident SCons that knows what depends on what, and builds again what has to be.

SCons has read the SConscripts and walked the whole graph once. When files are saved, the nodes of these files and all that
depend on them are cleared, and SCons is asked for the objects among those: it scans, decides and builds, as always.
"""
from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import SCons.Executor
import SCons.Node
import SCons.Platform.posix
import SCons.SConsign
import SCons.Script.Main
import SCons.Taskmaster

from .. import timings

try:
    from SCons.Taskmaster.Job import Jobs
except ImportError:                      # before SCons 4.5
    from SCons.Job import Jobs

Node = Any


@dataclass
class Built:
    """What became of one build."""
    rebuilt: list[Node] = field(default_factory=list)
    failed: list[Node] = field(default_factory=list)


class Graph:
    """The objects of the build's images, and what they are made of."""

    def __init__(self, objects: Iterable[Node], n_jobs: int) -> None:
        self.objects = dict.fromkeys(objects)          # in the order in which they are linked
        self.n_jobs = n_jobs
        self.before_each: Callable[[Node], None] | None = None      # called with what SCons is about to build
        self._made_of: dict[Node, set[Node]] = {}      # node -> what it depends on directly
        self._users: dict[Node, set[Node]] = {}        # node -> what depends on it directly
        self.fresh: set[str] = set()                   # files that were not known before the last build
        self._files: dict[str, set[Node]] = {}         # absolute path -> nodes that are not built: in variant directories several
        SCons.Node.interactive = True                  # nodes keep what it takes to look at them again
        _remember_compilers()
        _spawn_directly({id(env): env for obj in self.objects if (env := obj.get_env()) is not None}.values())

    def knows(self, path: str) -> bool:
        return path in self._files

    def files(self) -> list[str]:
        """Absolute paths of all that objects depend on and that is not built itself."""
        return list(self._files)

    def sources(self) -> set[str]:
        """Of these, the paths of what objects are compiled from."""
        return {path for obj in self.objects for source in obj.sources for path in _paths(source)}

    def users(self, paths: Iterable[str]) -> list[Node]:
        """The objects that depend on these files."""
        return [node for node in self._above(self._nodes(paths)) if node in self.objects]

    def direct_users(self, paths: Iterable[str]) -> list[Node]:
        """The same, if nothing else that is built depends on these files; else none."""
        above = self._above(self._nodes(paths))
        return [] if any(node.has_builder() and node not in self.objects for node in above) else self.users(paths)

    def build(self, targets: Iterable[Node] | None = None, changed: Iterable[str] = ()) -> Built:
        """Bring `targets` (all objects if None) up to date, `changed` files having been saved since the last time."""
        wanted = list(self.objects if targets is None else targets)
        for node in self._above(self._nodes(changed)):
            _forget(node)
        for node in wanted:
            self._forget_unfinished(node)
        built = _run(wanted, self.n_jobs, self.before_each)
        self.fresh.clear()
        for node in self.objects if targets is None else {*wanted, *built.rebuilt}:
            self._note(node)
        return built

    def is_stale(self, node: Node) -> bool:
        """Whether the last build left it without a good file."""
        return node.get_state() not in (SCons.Node.executed, SCons.Node.up_to_date)

    # ---- what depends on what ---------------------------------------------------------------------

    def _nodes(self, paths: Iterable[str]) -> set[Node]:
        return {node for path in paths for node in self._files.get(path, ())}

    def _above(self, nodes: Iterable[Node]) -> list[Node]:
        """These nodes and all that depend on them."""
        found = dict.fromkeys(nodes)
        waiting = list(found)
        while waiting:
            for user in self._users.get(waiting.pop(), ()):
                if user not in found:
                    found[user] = None
                    waiting.append(user)
        return list(found)

    def _note(self, top: Node) -> None:
        """Take down what `top` is made of, and what that is made of where it is built itself."""
        waiting = [top]
        seen = {top}
        while waiting:
            node = waiting.pop()
            children = set(_children(node))
            for gone in self._made_of.get(node, set()) - children:
                self._users[gone].discard(node)
            self._made_of[node] = children
            for child in children:
                self._users.setdefault(child, set()).add(node)
                if child not in self._made_of and child not in seen:
                    seen.add(child)
                    waiting.append(child)
            for path in () if node.has_builder() else _paths(node):
                if path not in self._files:
                    self.fresh.add(path)
                self._files.setdefault(path, set()).add(node)

    def _forget_unfinished(self, top: Node) -> None:
        """After a failed build nodes are left in the middle: of all below `top`, those are asked about anew."""
        waiting, seen = [top], {top}
        while waiting:
            node = waiting.pop()
            below = self._made_of.get(node, set()) - seen
            if node.has_builder() and self.is_stale(node):
                _forget(node)
                seen |= below
                waiting += below


def _children(node: Node) -> list[Node]:
    """What `node` depends on, the compiler and its like left out: the build's tools are not watched."""
    if not node.has_builder():
        return []
    commands = set(node.get_executor().get_implicit_deps()) if node.get_executor() else set()
    return [child for child in node.children(scan=0) if child not in commands]


def _paths(node: Node) -> set[str]:
    """Where the file of `node` lies; that of a source in a variant directory lies in the source directory too."""
    if not isinstance(node, SCons.Node.FS.Base):
        return set()
    found = {node.get_abspath(), node.srcnode().get_abspath()}
    if hasattr(node, "rfile"):
        found.add(node.rfile().get_abspath())
    return found


def _forget(node: Node) -> None:
    """Let SCons look at a node as if for the first time."""
    same = {node, *(node.get_executor().get_all_targets() if node.has_builder() and node.get_executor() else ())}
    if isinstance(node, SCons.Node.FS.Base):
        same |= {node.srcnode(), *([node.rfile()] if hasattr(node, "rfile") else ())}
    for each in same:
        each.clear()
        each.set_state(SCons.Node.no_state)
        each.implicit = None
        each.ref_count = 0
        each.waiting_parents, each.waiting_s_e = set(), set()
        if getattr(each, "linked", False):
            each.linked = False           # a copy in a variant directory: its source has another content now


# ---- running commands --------------------------------------------------------------------------------------------

_PLAIN_WORD = re.compile(r"[\w./:,+=@%^-]+\Z", re.ASCII)


def _spawn_directly(environments: Iterable[Any]) -> None:
    """Start compilers without a shell where their command lines need none: it takes longer than all that SCons does."""
    for env in environments:
        if env["SPAWN"] is SCons.Platform.posix.subprocess_spawn:
            env["SPAWN"] = _spawn


def _remember_compilers() -> None:
    """SCons asks several times in each build which compilers a command needs, and takes long to say. That stays as it is for as
    long as a session does: neither the build's scripts nor the environment of this process change."""
    asks = SCons.Executor.Executor.get_implicit_deps

    @functools.cache
    def known(executor: Any) -> list[Node]:
        return list(asks(executor))

    SCons.Executor.Executor.get_implicit_deps = lambda self: list(known(self))


def _spawn(shell: str, escape: Any, command: str, words: list[str], environment: dict[str, str]) -> int:
    is_plain = all(map(_PLAIN_WORD.match, words)) and "=" not in words[0]
    path = shutil.which(words[0], path=environment.get("PATH", "")) if is_plain else None
    if path is None:
        return int(SCons.Platform.posix.subprocess_spawn(shell, escape, command, words, environment))
    code = subprocess.Popen(words, executable=path, env=environment).wait()
    return code if code >= 0 else 128 - code              # as a shell reports signals


# ---- building ----------------------------------------------------------------------------------------------------


class _Jobs(Jobs):     # type: ignore[misc]  # SCons is untyped
    """Within the action of another build, which looks after signals, perhaps on a thread."""

    def _setup_sig_handler(self) -> None:
        pass

    def _reset_sig_handler(self) -> None:
        pass


def _run(targets: list[Node], n_jobs: int, before_each: Callable[[Node], None] | None) -> Built:
    built = Built()

    class Task(SCons.Script.Main.BuildTask):     # type: ignore[misc]
        """One task of this build: all that can be built is, and failures end nothing."""
        progress = None

        def execute(self) -> None:
            if before_each is not None:
                before_each(self.targets[0])
            with timings.span("compile"):
                super().execute()
            built.rebuilt.extend(self.targets)

        def do_failed(self, status: int = 2) -> None:
            built.failed.extend(self.targets)
            self.fail_continue()

        def needs_execute(self) -> bool:
            return bool(SCons.Taskmaster.OutOfDateTask.needs_execute(self))    # up to date is nothing to speak of

        def postprocess(self) -> None:
            SCons.Taskmaster.OutOfDateTask.postprocess(self)

    master = SCons.Taskmaster.Taskmaster(targets, Task)
    _Jobs(n_jobs if len(targets) > 1 else 1, master).run()
    return built


def save_signatures() -> None:
    """Write down what SCons knows, so that the next build in this tree does nothing needless."""
    SCons.SConsign.write()
