"""One watching session: wait for saves, build what depends on them, patch, and again.

Runs within the action of the target `hotpatch-watch`, so in a SCons that has read everything. It trusts nothing that may
have changed behind its back: whoever else builds in the tree, edits a script or makes a file of the file list makes it start
again from nothing (`Restart`).
"""
from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from SCons.Tool.cc import CSuffixes
from SCons.Tool.cxx import CXXSuffixes

from .. import hotpatch, instrument, process, report, timings
from ..errors import HotreloadError
from ..objectmap import ObjectMap
from ..request import HotpatchRequest
from ..stamp import Stamp, stamp
from . import graph, reading
from .behind import Behind
from .graph import Graph
from .maps import Overlaid, ResidentMaps
from .memory import Memory
from .quick import Ahead, Quick
from .saves import Overflow, Saves, changed_since
from .screen import Screen

_COMES_BACK_SECONDS = 1.0      # editors and version control remove a file before they write it anew
_SETTLED_SECONDS = 0.5         # idle for so long: what SCons knows is written down
_HEADERS = (".h", ".hh", ".hpp", ".hxx", ".h++", ".H", ".inc", ".inl", ".ipp", ".tcc", ".def")


class Restart(Exception):
    """Everything has to be read again; the message says why."""


@dataclass
class Session:
    """A tree being watched. `request` is what `scons hotpatch` would ask for; the list of objects in it stays as it is."""
    top: str
    request: HotpatchRequest
    graph: Graph
    wake: int | None                       # readable when a signal came
    screen: Screen = field(default_factory=Screen)
    timed: str = ""                        # HOTPATCH_TIMINGS
    sconsign: str = ""                     # where SCons keeps its signatures
    prefixes: str = "never"                # one of settings.PREFIXES

    def __post_init__(self) -> None:
        self.saves = Saves(self.wake)
        self.store = Memory(self.request.directory)
        self._maps: dict[str, ObjectMap | None] = {}       # path of an object -> its map
        self._resident = {image.name: ResidentMaps(self.store, image.objects, self._carried) for image in self.request.images}
        self._failed: dict[Any, None] = {}                 # objects that could not be compiled
        self._missed: set[str] = set()                     # saved before anybody looked
        self._quick = None if self.prefixes == "never" else Quick(
            self.request, self.graph.n_jobs, lambda text: self.screen.line(text, "bold yellow"), self.prefixes == "always")
        if self._quick is not None:
            self.graph.before_each = self._quick.compiles.follow
        self._unsaved = False                              # SCons knows what is not written down yet
        self._sign_stamp: Stamp | None = None
        self._scripts: set[str] = set()
        self._sources: set[str] = set()
        self._agents = {str(path) for path in process.runtime_directories()}
        self.ended = False

    # ---- the loop ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Until a signal ends it. Raises Restart."""
        begun = time.time_ns()
        behind = self._behind = Behind()
        behind.start()
        try:
            with self._alone():
                self._sign_stamp = stamp(self.sconsign)       # SCons reads it now
                self._build(None, set())
                self._follow()
                changed = changed_since([*self.graph.files(), *self._scripts], begun)
                self._cycle(changed, first=True)
            self._say_what_is_watched()
            self._warm()
            gc.freeze()                        # what SCons knows stays: it need not be looked through again
            while not self.ended:
                self._serve()
        finally:
            behind.stop()
            self._write_down()
            self.screen.idle("")
            self.saves.close()
            if self._quick is not None:
                self._quick.close()

    def _serve(self) -> None:
        """Wait for one batch of saves, or for a process that starts, and do what it takes."""
        changed = self._wait(_SETTLED_SECONDS if self._unsaved else None)
        if self.ended:
            return
        if not changed:
            self._write_down()
            self.store.prune(hotpatch.ask_processes().build_ids(), hotpatch.KEEP_RECENT)
            return
        relevant = self._relevant(changed)
        started = any(os.path.dirname(path) in self._agents and os.path.exists(path) for path in changed)
        if not relevant and not started:
            return
        self.screen.idle("")
        gc.disable()
        try:
            with self._alone():
                self._check_nobody_built()
                self._cycle(relevant)
        finally:
            gc.enable()
        self.screen.idle("watching")
        with contextlib.suppress(HotreloadError, OSError):      # said when it matters
            self._warm()

    def _wait(self, seconds: float | None) -> set[str]:
        try:
            changed = self.saves.wait(seconds)
        except Overflow:
            raise Restart("more files changed than the system keeps account of") from None
        if not changed and self.wake is not None:
            self.ended = _came(self.wake)
        return changed

    def _cycle(self, changed: set[str], first: bool = False) -> None:
        """Build and patch. What is saved meanwhile is taken along, so that nothing stale goes live."""
        if self.timed:
            timings.start()
        saved: set[str] = set()
        built: dict[Any, None] = {}
        went_ahead, settled = False, True                      # settled: all that was built is live already
        while changed or self._failed:
            saved |= changed
            ahead = self._go_ahead(changed)
            made = self._build(dict.fromkeys([*self.graph.users(changed), *self._failed]), changed)
            went_ahead |= bool(ahead)
            settled &= self._compare(ahead) and {*made} <= {each.node for each in ahead}
            built.update(dict.fromkeys(made))
            changed = self._relevant(self._now() | self._missed)
            self._missed.clear()
            if not changed:
                break
        if self._failed:
            names = ", ".join(sorted(str(node) for node in self._failed))
            self.screen.line(f"not compiled: {names}; nothing was patched, waiting for the next save", "bold red")
            return
        if not (went_ahead and settled):
            self._patch(self.request, first or bool(built))
        if self.timed:
            self._say_timings()
        if self._quick is not None:
            self._quick.learn(built, saved, self._map)

    def _say_timings(self) -> None:
        for name, why in self._quick.whole.items() if self._quick is not None else ():
            self.screen.line(f"{name} was compiled together with its includes: {why}")
        self.screen.line(timings.report(self.timed))

    def _warm(self) -> None:
        """After a patch, while nobody waits: do what the next one of the same program would begin with."""
        for image in self.request.images:
            for build_id in self.store.programs().get(image.name, [])[-1:]:
                live = self.store.live_state(build_id)
                for file in {0, live.generation}:
                    self.store.linked(live, file)
                maps = self._resident[image.name]
                maps.settle(live)
                for name in maps.suspects(live):          # the same object where they are equal: quickly compared
                    obj, known = image.by_name.get(name), live.maps.get(name)
                    if obj is not None and known is not None and known == self._maps.get(obj.path):
                        self._maps[obj.path] = known

    def _patch(self, request: HotpatchRequest, tell: bool, made: Mapping[str, ObjectMap] = MappingProxyType({})) -> None:
        """`made`: maps by object that are the session's own, not the build's."""
        self._behind.wait()
        running = hotpatch.ask_processes() if request.apply else hotpatch.Running()
        results = hotpatch.patch_tree(self.store, request, running, lambda image: Overlaid(self._resident[image.name], made))
        if tell or any(r.problems or r.document for r in results):
            self.screen.results(results, request.silent)

    # ---- ahead of the build -----------------------------------------------------------------------

    def _go_ahead(self, changed: set[str]) -> list[Ahead]:
        """Make these saves live before SCons compiles, where that can be done; what was made for it."""
        if self._quick is None or self._failed or not changed:
            return []
        with timings.span("compile ahead"):
            ahead = self._quick.make(self.graph.direct_users(changed), changed, self._map)
        if ahead:
            made = {each.described.object: each.described for each in ahead}
            self._patch(self._quick.request(ahead), True, made)
        return ahead

    def _compare(self, ahead: list[Ahead]) -> bool:
        """Whether what went live is what the build made of it."""
        if self._quick is None or not ahead:
            return True
        return self._quick.compare(ahead, {each.node: self._map(each.node) for each in ahead if each.node not in self._failed})

    def _now(self) -> set[str]:
        try:
            return self.saves.now()
        except Overflow:
            raise Restart("more files changed than the system keeps account of") from None

    # ---- building ---------------------------------------------------------------------------------

    def _build(self, targets: Collection[Any] | None, changed: set[str]) -> list[Any]:
        """The objects that were built."""
        begun = time.time_ns()
        with timings.span("scons"):
            built = self.graph.build(targets, changed)
        self._unsaved = True
        for node in built.rebuilt:
            self._forget(node.get_abspath())
        wanted = self.graph.objects if targets is None else targets
        self._failed = {node: None for node in wanted if self.graph.is_stale(node)}
        if targets is not None and self.graph.fresh:
            for folder in set(map(os.path.dirname, self.graph.fresh)):
                self.saves.follow(folder)
            self._missed |= changed_since(self.graph.fresh, begun)     # before its directory was followed
        return [node for node in built.rebuilt if node in self.graph.objects]

    def _forget(self, path: str) -> None:
        self._maps.pop(path, None)
        for maps in self._resident.values():
            maps.forget(path)

    def _carried(self, path: str) -> ObjectMap | None:
        if path not in self._maps:
            self._maps[path] = instrument.carried_map(path)
        return self._maps[path]

    def _map(self, node: Any) -> ObjectMap | None:
        return self._carried(node.get_abspath())

    # ---- what is watched --------------------------------------------------------------------------

    def _follow(self) -> None:
        """Follow the directories of all files that count."""
        self._scripts = reading.scripts(self.top) | _own_sources()
        self._sources = {os.path.splitext(path)[1] for path in self.graph.sources()} | {*CSuffixes, *CXXSuffixes}
        listed = {folder for folder in reading.listed if folder == self.top or folder.startswith(self.top + os.sep)}
        paths = [*self.graph.files(), *self._scripts]
        for folder in self._agents:              # as the first agent would make it: programs to come are noticed there
            with contextlib.suppress(OSError):
                os.mkdir(folder, 0o700)
        for folder in {*map(os.path.dirname, paths), *listed, *self._agents}:
            self.saves.follow(folder)

    def _relevant(self, changed: set[str]) -> set[str]:
        """Those of `changed` that objects depend on. Raises Restart where that is not the whole story."""
        for path in sorted(changed):
            if path in self._scripts:
                raise Restart(f"{os.path.relpath(path, self.top)} changed")
            if not self.graph.knows(path) and self._may_matter(path):
                raise Restart(f"{os.path.relpath(path, self.top)} is new")
        relevant = {path for path in changed if self.graph.knows(path)}
        missing = {path for path in relevant if not os.path.exists(path)}
        return relevant | self._come_back(missing) if missing else relevant

    def _may_matter(self, path: str) -> bool:
        """Whether a file that nothing depends on yet may be one of the file list, or hide another from the compiler."""
        folder, name = os.path.split(path)
        suffix = os.path.splitext(name)[1]
        if name.startswith((".", "#")) or not os.path.isfile(path):
            return False
        if suffix in self._sources and folder in reading.listed:
            return True
        is_header = suffix in _HEADERS or suffix in self._sources
        return is_header and (bool(self._failed) or any(os.path.basename(known) == name for known in self.graph.files()))

    def _come_back(self, missing: set[str]) -> set[str]:
        """Wait a little for files that are gone; returns what else changed meanwhile. Raises Restart for a source that stays
        away."""
        deadline = time.monotonic() + _COMES_BACK_SECONDS
        others: set[str] = set()
        while (away := {path for path in missing if not os.path.exists(path)}) and time.monotonic() < deadline:
            others |= self._wait(deadline - time.monotonic())
            if self.ended:
                return set()
        if away & self.graph.sources():
            raise Restart(f"{os.path.relpath(min(away), self.top)} is gone")
        return self._relevant(others - missing) if others - missing else set()

    def _say_what_is_watched(self) -> None:
        self.screen.line(f"watching {report.plural(len(self.graph.files()), 'file')} of "
                         f"{report.plural(len(self.graph.objects), 'object')}; Ctrl-C ends it", "bold")
        self.screen.idle("watching")

    # ---- others in the tree -----------------------------------------------------------------------

    def _alone(self) -> Any:
        return _Lock(self.top)

    def _check_nobody_built(self) -> None:
        if stamp(self.sconsign) != self._sign_stamp:
            raise Restart("another build ran in this tree")

    def _write_down(self) -> None:
        """Leave the tree as `scons hotpatch` would have."""
        if not self._unsaved:
            return
        with self._alone():
            if stamp(self.sconsign) == self._sign_stamp:
                graph.save_signatures()
                self._sign_stamp = stamp(self.sconsign)
        self._unsaved = False


class _Lock:
    """The lock that every `scons hotpatch` of the tree takes (scons_images.lock_tree)."""

    def __init__(self, top: str) -> None:
        self._top = top

    def __enter__(self) -> None:
        self._descriptor = os.open(self._top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _own_sources() -> set[str]:
    """The tool's own files: another version must not go on with what this one has loaded."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return {os.path.join(folder, name) for folder, _, names in os.walk(package) for name in names if name.endswith(".py")}


def _came(wake: int) -> bool:
    """Whether one of the signals that end a session came."""
    try:
        numbers = os.read(wake, 256)
    except BlockingIOError:
        return False
    return bool({signal.SIGINT, signal.SIGTERM, signal.SIGHUP} & set(numbers))


def on_main_thread(work: Callable[[], None]) -> None:
    """Run `work` with signals that end a session only noted, where that can be arranged for."""
    if threading.current_thread() is not threading.main_thread():
        work()
        return
    before = {number: signal.signal(number, _noted) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        work()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _noted(number: int, frame: object) -> None:
    """The number is in the pipe that the session waits on."""
