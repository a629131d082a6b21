"""`scons hotpatch`: from the objects of a build to bundles, and into every process that runs one of its images.

An image is patched once for each build of it that runs (processes may have been started from older builds): what that
build has live is compared with the new objects, and the difference becomes the next generation of its chain.
"""
from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from . import (
    __version__,
    abi,
    blockers,
    bundle,
    contents,
    guard,
    initialisers,
    instrument,
    libraries,
    literals,
    noise,
    oldcode,
    payload,
    plainparts,
    process,
    report,
    timings,
    together,
    vanished,
)
from .baseline import Store
from .confined import Confined
from .contents import Content
from .difference import entries
from .errors import HotreloadError, NotForImage, Refusal, Refused
from .live import LiveFunction, LiveState
from .objectmap import ObjectMap
from .objectmaps import ObjectMaps
from .plan import Binding, Plan, make_plan
from .request import HotpatchRequest, ImageRequest

KEEP_RECENT = 8              # builds of each program that are kept though no process runs them
_STATUS_SECONDS = 5.0        # bound on asking one process what it runs


@dataclass
class Running:
    """The processes of this user that have an agent."""
    statuses: list[process.ProcessStatus] = field(default_factory=list)
    confined: list[Confined] = field(default_factory=list)      # of others, which were not asked
    silent: list[HotreloadError] = field(default_factory=list)  # why others did not say what they run

    def build_ids(self) -> set[str]:
        return {b for s in self.statuses for b in (*(i.build_id for i in s.images), *(k.build_id for k in s.kept))}

    def occupied(self, build_id: str) -> int:
        """The highest image-relative address that one of the processes uses in the arena of an image; 0: none runs it."""
        return max((i.arena_used_end for s in self.statuses for i in s.images if i.build_id == build_id), default=0)

    def with_image(self, build_id: str) -> list[process.ProcessStatus]:
        return [s for s in self.statuses if any(i.build_id == build_id for i in s.images)]

    def of_tree(self, store: Store, images: Sequence[ImageRequest]) -> list[process.ProcessStatus]:
        """Those that run an image of the tree."""
        programs, known = {i.path for i in images}, {b for builds in store.programs().values() for b in builds}
        return [s for s in self.statuses if any(i.build_id in known or _plain_path(i) in programs for i in s.images)]


@dataclass
class Attempt:
    """What became of one build of an image: a new bundle, or the error that kept it from being made, or neither."""
    image: ImageRequest
    made: Path | None = None
    error: Exception | None = None
    absent_from: set[int] = field(default_factory=set)    # pids that may load this build of a library later


def run(request: HotpatchRequest) -> int:
    """Patch every image of the tree; returns the exit code. Failures are printed, each with its reasons."""
    store = Store(request.directory)
    running = ask_processes() if request.apply else Running()
    results = patch_tree(store, request, running)
    for result in results:
        if request.silent:
            result.lines = []
        report.show(result, as_json=False)
    sys.stdout.flush()
    store.prune(running.build_ids() if request.apply else ask_processes().build_ids(), KEEP_RECENT)
    return max((r.exit_code for r in results), default=0)


Maps = Callable[[ImageRequest], ObjectMaps]     # of the objects of an image


def patch_tree(store: Store, request: HotpatchRequest, running: Running, maps_of: Maps | None = None) -> list[report.Result]:
    """Make what the images of the tree lack and bring it to the processes; returns what there is to say, one line at least.

    `maps_of`: what knows the maps of the objects already."""
    attempts: dict[str, Attempt] = {}        # build-id -> what became of it
    family = running.of_tree(store, request.images)
    results = [r for image in request.images
               for r in attempt_image(store, image, running, attempts, family, maps_of)]
    begun = time.time()
    results += patch_processes(store, running, attempts, request)
    if request.guard:
        results += watch(store, running, attempts, begun)
    with timings.span("settle"):
        results += settle(store, running, attempts)
    results += [report.Result({}, problems=report.failure(e).problems) for e in (*running.confined, *running.silent)]
    if not any(r.lines or r.problems for r in results):
        results.append(report.Result({}, [report.Line("nothing changed", "bold")]))
    return results


def ask_processes() -> Running:
    """What runs now. A process that ends meanwhile is left out, and one that does not answer is told of."""
    with timings.span("ask"):
        return _ask_all(process.find())


def _ask_all(agents: Sequence[process.AgentAddress]) -> Running:
    running = Running()
    for agent in agents:
        try:
            running.statuses.append(process.status(agent.pid, _STATUS_SECONDS))
        except Confined as e:
            running.confined.append(e)
        except HotreloadError as e:
            if process.exists(agent.pid):
                running.silent.append(_silent(agent.pid, e))
    return running


def _silent(pid: int, why: HotreloadError) -> HotreloadError:
    return HotreloadError(f"process {pid} was left out: it did not say what it runs: {why}")


def attempt_image(store: Store, image: ImageRequest, running: Running, attempts: dict[str, Attempt],
                  family: Sequence[process.ProcessStatus] = (), maps_of: Maps | None = None) -> list[report.Result]:
    """Make the next generation of every build of `image` that runs, and of the linked file's if none runs or if it is a
    library that a process of `family` may load later; nothing is applied."""
    try:
        builds = builds_to_patch(store, image, running, family)
        with timings.span("maps"):
            maps = maps_of(image) if maps_of else ObjectMaps(store, image.objects)
    except (HotreloadError, OSError) as e:
        return [_failed(image.name, e)]
    results = []
    for build_id, absent_from in builds.items():
        attempt = attempts[build_id] = Attempt(image, absent_from=absent_from)
        try:
            settle_unfinished(store, build_id, users_of(build_id, attempt, running), bool(running.silent))
            attempt.made = make_generation(store, build_id, image, maps, running.occupied(build_id))
        except (HotreloadError, OSError) as e:
            attempt.error = e
            results.append(_failed(image.name, e))
    maps.remember()
    return results


def watch(store: Store, running: Running, attempts: Mapping[str, Attempt], begun: float) -> list[report.Result]:
    """Wait until the guards that were set since `begun` are over, and say what became of them."""
    newest = {b: store.bundles(b)[-1].image(b) for b in attempts if store.bundles(b)}
    payloads = {b: store.payload(patch[1]) for b, patch in newest.items() if patch}
    results = []
    for pid, said in guard.watch_all([s.pid for s in running.statuses], begun, payloads):
        if isinstance(said, guard.Crashed):
            results.append(report.applied("hotpatch", [], [(pid, said)]))
        else:
            results.append(report.Result({}, [report.Line(f"pid {pid}:"), *report.guard_lines(said)]))
    return results


def settle(store: Store, running: Running, attempts: Mapping[str, Attempt]) -> list[report.Result]:
    """Say which new bundles wait for a process; take those back that every process refused, so that the next edit is
    compared with what really runs."""
    results = []
    for build_id, attempt in attempts.items():
        if attempt.made is None:
            continue
        users = users_of(build_id, attempt, running)
        if not users:
            results.append(_left(attempt.image.name, attempt.made))
        elif not any(_has_taken(status.pid, build_id, len(store.chain(build_id))) for status in users):
            store.withdraw(build_id, attempt.made)
            continue
        store.keep(build_id, attempt.made)
    return results


def users_of(build_id: str, attempt: Attempt, running: Running) -> list[process.ProcessStatus]:
    """Who runs this build, or may load it."""
    return [*running.with_image(build_id), *(s for s in running.statuses if s.pid in attempt.absent_from)]


def settle_unfinished(store: Store, build_id: str, users: Sequence[process.ProcessStatus], others: bool) -> None:
    """Do for the last bundle of a chain what the tool that made it did not come to: it was killed. Else a bundle that every
    process refuses would be in the way of all later ones. `others`: there may be users that did not say so."""
    with store.locked(build_id):
        made = store.on_trial(build_id)
        if made is None:
            return
        generation = len(store.chain(build_id))
        if users and not others and not any(_has_taken(status.pid, build_id, generation) for status in users):
            store.withdraw(build_id, made)
        else:
            store.keep(build_id, made)


def _has_taken(pid: int, build_id: str, generation: int) -> bool:
    """Whether the process is at `generation`, or was given it for later; one that does not answer may be."""
    try:
        status = process.status(pid, _STATUS_SECONDS)
        taken = [i.generation for i in status.images if i.build_id == build_id]
        given = [k.generation for k in status.kept if k.build_id == build_id]
        return max((*taken, *given), default=0) >= generation
    except process.NoAgent:
        return process.exists(pid)
    except HotreloadError:
        return True


# ---- which builds -------------------------------------------------------------------------------


def builds_to_patch(store: Store, image: ImageRequest, running: Running,
                    family: Sequence[process.ProcessStatus] = ()) -> dict[str, set[int]]:
    """Build-ids: those that processes run, and that of the linked file if none does or if processes of `family` may load
    it later; these are the values. Baselines that are missing are filed again."""
    known = set(store.programs().get(image.name, []))
    found: dict[str, set[int]] = {}
    loaded_by = set()
    for status in running.statuses:
        for loaded in status.images:
            if loaded.build_id in known or _plain_path(loaded) == image.path and _recover(store, image, status, loaded):
                found.setdefault(loaded.build_id, set())
                loaded_by.add(status.pid)
    absent_from = {s.pid for s in family} - loaded_by if image.kind != "program" else set()
    if (absent_from or not found) and Path(image.path).exists():
        filed = store.filed(image.path)
        found.setdefault(filed or store.file_image(image.path, image.name), set()).update(absent_from)
    return found


def _plain_path(loaded: process.LiveImage) -> str:
    """Where the image was when it was loaded."""
    return loaded.path.removesuffix(" (deleted)")


def _recover(store: Store, image: ImageRequest, status: process.ProcessStatus, loaded: process.LiveImage) -> bool:
    """File the image a process runs, from the process: it was linked in another tree, or its baseline was removed."""
    sources = [f"/proc/{status.pid}/exe"] if loaded.kind != "shared" else []
    for path in [*sources, image.path]:
        try:
            if store.file_image(path, image.name) == loaded.build_id:
                return True
        except (HotreloadError, OSError):
            continue
    raise NotForImage(f"process {status.pid} runs a build of {image.name} (build-id {loaded.build_id}) of which there is no "
                      "baseline and no file; restart it from the present build")


# ---- one generation -----------------------------------------------------------------------------


def make_generation(store: Store, build_id: str, image: ImageRequest, objects: ObjectMaps, occupied: int = 0) -> Path | None:
    """Make the next bundle of a build and append it to the build's chain; None if nothing changed. Raises Refused.

    `occupied`: the image-relative address up to which some process has its arena in use, by what was withdrawn since too."""
    with store.locked(build_id):
        return store.with_index(build_id, lambda: _make_generation(store, build_id, image, objects, occupied))


def _make_generation(store: Store, build_id: str, image: ImageRequest, objects: ObjectMaps, occupied: int) -> Path | None:
    with timings.span("baseline"):
        check_plain_objects(store.plain(build_id), image, objects)
        live = store.live_state(build_id)
    live.arena_used_end = max(live.arena_used_end, occupied)
    is_noise = noise.judge(store, live, image.paths)
    with timings.span("plan"):
        plan = make_plan(live, _news(live, image, objects), init=image.init, is_noise=is_noise)
        plan.check()
    if plan.empty:
        return None
    with timings.span("old code"):
        check_vanished(live, plan, image)
        old, parts = old_contents(store, live, plan), oldcode.parts(store, live, plan.changed)
        known = known_literals(store, live)
    with timings.span("payload"):
        made = make_bundle(live, plan, image, old, parts, known)
    with timings.span("bundle"):
        return store.append(build_id, made)


def check_vanished(live: LiveState, plan: Plan, image: ImageRequest) -> None:
    """Raises Refused for variables that the compiler took out of an object although the source still has them."""
    reasons = vanished.check(live, plan, image.paths)
    if reasons:
        raise Refused(reasons)


def check_plain_objects(known: Mapping[str, str], image: ImageRequest, objects: ObjectMaps) -> None:
    """Raises Refused if an object that was left uninstrumented changed since the image was linked."""
    plain = [o for o in image.objects if o.name in known and not objects.digest(o.name)]
    plainparts.check(known, {o.name: instrument.plain_digest(o.path) for o in plain})


def _news(live: LiveState, image: ImageRequest, objects: ObjectMaps) -> dict[str, ObjectMap | None]:
    """The new maps that are part of the image: of all of its own objects that are not known to be as they were, and of
    archives what is used."""
    news: dict[str, ObjectMap | None] = {}
    candidates: dict[str, ObjectMap | None] = {}
    lost: list[str] = []
    for name in objects.suspects(live):
        listed, lives = image.by_name.get(name), name in live.maps
        digest = objects.digest(name) if listed else b""
        if listed is None:
            news[name] = None
        elif not digest:
            lost += [name] if lives else []
        elif not live.unchanged(name, digest):
            (candidates if listed.from_archive and not lives else news)[name] = objects.map(name)
    if lost:
        raise Refused([Refusal("not-instrumented", name, "", "it was instrumented in the running program and is not any more",
                               "take it out of HOTRELOAD_EXCLUDE, or restart the program") for name in lost])
    _add_archived(news, {name: m for name, m in candidates.items() if m}, live)
    return news


def _add_archived(news: dict[str, ObjectMap | None], candidates: dict[str, ObjectMap], live: LiveState) -> None:
    """Take archive members that define what is referred to and missing, as the linker does."""
    defined = {e.name for m in news.values() if m for e in entries(m)}

    def is_defined(name: str) -> bool:
        return name in defined or name in live.functions or name in live.data \
            or any(d.object not in news for d in live.definitions.get(name, ()))

    def is_wanted(name: str) -> bool:
        return not is_defined(name) and name not in live.symbols and (name in imported or any(
            o not in news and name in live.maps[o].imports for o in live.importers([name])))

    imported = {i for m in news.values() if m for i in m.imports}
    while candidates:
        found = [n for n, m in candidates.items() if any(e.binding == "global" and is_wanted(e.name) for e in entries(m))]
        if not found:
            return
        for name in found:
            member = candidates.pop(name)
            news[name] = member
            defined |= {e.name for e in entries(member)}
            imported |= set(member.imports)


def old_contents(store: Store, live: LiveState, plan: Plan) -> dict[str, Content]:
    """What the constants that change in place hold now: by the last generation that wrote them, else by the image."""
    found: dict[str, Content] = {}
    wanted = {u.address: u for u in plan.updates}      # not by name: static locals take others with the next generation
    for made in reversed(store.bundles(live.build_id)) if wanted else []:
        entry, _, _ = made.image(live.build_id) or ({}, b"", [])
        touched = [d for d in (*entry["data"]["updated"], *entry["data"]["added"]) if d["address"] in wanted]
        if touched:
            brought = store.linked(live, int(entry["generation"]))
            start, end = entry["arena"]
            symbols = {s.name: s.value for s in brought.symbols if s.defined and start <= s.value < end}
            for record in touched:
                place = symbols.get(record["name"] + payload.NEW_SUFFIX, symbols.get(record["name"]))
                if place is not None:      # else all of its elements kept their initial values
                    update = wanted.pop(record["address"])
                    found[update.name] = contents.read(brought, place, update.old_size)
    if wanted:
        image = store.linked(live)
        found.update({u.name: contents.read(image, u.address, u.old_size) for u in wanted.values()})
    return found


def known_literals(store: Store, live: LiveState) -> literals.Literals:
    staying = [p.generation for p in live.payloads if not p.transient][-literals.IN_PAYLOADS:]
    return literals.Literals(live, [store.linked(live, generation) for generation in (0, *staying)])


def make_bundle(live: LiveState, plan: Plan, image: ImageRequest,
                old: Mapping[str, Content], parts: Mapping[str, Sequence[oldcode.Range]] = MappingProxyType({}),
                known: literals.Literals | None = None) -> bundle.Bundle:
    """Link the payload of `plan` and put it into a bundle. `old`: by name, of all that the plan updates; `parts`:
    `oldcode.parts` of what it changes; `known`: strings that need not come along."""
    brought = plan.brought
    generation = live.generation + 1
    identity = bundle.generation_id(live.build_id, generation, live.id, brought)
    request = payload_request(live, plan, image, brought, identity, old, parts, known)
    linked = _link_somewhere(live, request, _linker(live, image))
    entry = manifest_entry(live, plan, brought, linked, request.updates)
    patch = bundle.ImagePatch(entry, linked.data, brought)
    created = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return bundle.build(image.name, [patch], created=created, tool=__version__)


def _link_somewhere(live: LiveState, request: payload.PayloadRequest, linker: payload.Linker) -> payload.Payload:
    """In the first free range of the arena that is large enough. Raises Refused if none is."""
    full: Refused | None = None
    for request.base, request.limit in live.rooms() or [(sum(live.arena), sum(live.arena))]:
        try:
            return payload.build(request, linker)
        except Refused as e:
            if any(r.code != "arena-full" for r in e.refusals):
                raise
            full = e
    assert full is not None
    raise full


def _has_armed_head(function: LiveFunction | None) -> bool:
    return function is not None and function.head is not None and function.generation > 0


def payload_request(live: LiveState, plan: Plan, image: ImageRequest, brought: Sequence[ObjectMap],
                    identity: str, old: Mapping[str, Content],
                    parts: Mapping[str, Sequence[oldcode.Range]] = MappingProxyType({}),
                    known: literals.Literals | None = None) -> payload.PayloadRequest:
    paths = image.paths
    kinds = _bindings_by_kind(plan.bindings)
    updates = [piece for u in plan.updates for piece in initialisers.pieces(u, old[u.name], paths[u.object])]
    updates += [payload.Update(v.name, v.address, v.size, Content(bytes(v.size)), flags=abi.UpdateFlags.THREADS)
                for v in plan.thread_values]
    return payload.PayloadRequest(
        image=Path(live.path), kind=live.kind, build_id=bytes.fromhex(live.build_id), generation=live.generation + 1,
        id=bytes.fromhex(identity), parent=bytes.fromhex(live.id), base=live.arena_used_end, limit=sum(live.arena),
        objects={o: paths[o] for o in plan.objects},
        functions={n: payload.BoundFunction(b.address, b.slot) for n, b in kinds["function"].items()},
        armed=frozenset({c.name for c in plan.changed if c.head is not None}
                        | {n for n in kinds["function"] if _has_armed_head(live.functions.get(n))}),
        data={n: b.address for kind in ("data", "tls") for n, b in kinds[kind].items()},
        symbols=live.symbols.get, exported=frozenset(live.facts.exported if live.kind == "shared" else ()),
        named_data=frozenset(d.name for m in brought for d in m.data),
        changed=[payload.Changed(c.name, c.slot, c.old_body, c.old_size, parts.get(c.name, ()), c.head)
                 for c in plan.changed],
        updates=updates,
        initialisers=plan.initialisers, tls=(live.facts.tls.size, live.facts.tls.align) if live.facts.tls else (0, 1),
        literals=known)


def _bindings_by_kind(bindings: Mapping[str, Binding]) -> dict[str, dict[str, Binding]]:
    kinds: dict[str, dict[str, Binding]] = {"function": {}, "data": {}, "tls": {}, "symbol": {}}
    for name, binding in bindings.items():
        kinds[binding.kind][name] = binding
    return kinds


def _linker(live: LiveState, image: ImageRequest) -> payload.Linker:
    link = image.link
    driver = link.driver or link.cxx or link.cc
    directories = [d.removeprefix("-L") for d in link.libpath]
    found, missing = libraries.find(live.facts.needed, image.path, live.facts.runpath, driver, directories)
    # A library that is not found is left out: a symbol that only it has is then named as missing by the link.
    del missing
    return payload.Linker(driver, link.cxx, found)


def manifest_entry(live: LiveState, plan: Plan, brought: Sequence[ObjectMap], linked: payload.Payload,
                   updates: Sequence[payload.Update]) -> dict[str, Any]:
    """One entry of the manifest's `images` (docs/formats.md), with the addresses that the link gave."""
    home = {e.name: m.object for m in reversed(brought) for e in entries(m)}
    data = {d.name: d for m in reversed(brought) for d in m.data}
    return {
        "build_id": live.build_id, "kind": live.kind, "generation": live.generation + 1, "parent": live.id,
        "arena": [linked.start, linked.end], "transient": linked.transient,
        "changed": [{"name": c.name, "object": c.object, "slot": c.slot, "old_body": c.old_body, "old_size": c.old_size,
                     "body": linked.bodies[c.name][0], "size": linked.bodies[c.name][1]} for c in plan.changed],
        "added": [{"name": n, "object": home[n], "entry": entry, "slot": slot, "body": body, "size": size}
                  for n, (entry, slot, body, size) in sorted(linked.added.items()) if n not in plan.bindings],
        "removed": [{"name": r.name, "object": r.object} for r in plan.removed],
        "data": {
            "added": [{"name": n, "object": home[n], "address": address, "size": size, "extent": data[n].extent}
                      for n, (address, size) in sorted(linked.new_data.items())],
            "updated": [{"name": u.name, "address": u.address, "size": u.size} for u in plan.updates],
            "writes": [[u.address, u.size, int(u.flags)] for u in updates],
            "bound": [{"name": n, "address": b.address, "extent": b.extent, "was": b.was}
                      for n, b in sorted(plan.bindings.items()) if b.kind in ("data", "tls") and n in data],
        },
        "notes": list(plan.notes),
    }


# ---- processes ----------------------------------------------------------------------------------


Patch = tuple[dict[str, Any], bytes, list[ObjectMap]]     # what bundle.Bundle.image gives
Step = dict[str, Patch]                                   # build-id -> what its next generation brings


def patch_processes(store: Store, running: Running, attempts: Mapping[str, Attempt],
                    request: HotpatchRequest) -> list[report.Result]:
    """Bring the processes up to date: all images of each in one step each generation, and all processes of a build together."""
    builds = {s.pid: _builds_of(s, attempts) for s in running.statuses}
    concerned = [s for s in running.statuses if builds[s.pid]]
    refused = {s.pid: [attempts[b].image.name for b in builds[s.pid] if attempts[b].error is not None] for s in concerned}
    results = [_half_there(s, refused[s.pid], [attempts[b] for b in builds[s.pid]]) for s in concerned if refused[s.pid]]
    loaded = {s.pid: [i.build_id for i in s.images if i.build_id in attempts] for s in concerned}
    for group in groups({s.pid: loaded[s.pid] for s in concerned if not refused[s.pid]}):
        names = {b: attempts[b].image.name for pid in group for b in builds[pid]}
        results += patch_group(store, [(s, builds[s.pid]) for s in concerned if s.pid in group], names, request)
    return results


def _builds_of(status: process.ProcessStatus, attempts: Mapping[str, Attempt]) -> list[str]:
    """Which builds concern the process: of images that it has loaded, and of libraries that it may load. One of these that
    was refused counts only if the process was given generations of it before: else it may have nothing to do with it."""
    given = {k.build_id for k in status.kept}
    absent = [b for b, attempt in attempts.items() if status.pid in attempt.absent_from and (attempt.error is None or b in given)]
    return [*dict.fromkeys(i.build_id for i in status.images if i.build_id in attempts), *absent]


def _half_there(status: process.ProcessStatus, refused: Sequence[str], attempts: Sequence[Attempt]) -> report.Result:
    """Where one image of a process was refused, the others are left as they are. Says nothing if there are no others."""
    others = ", ".join(a.image.name for a in attempts if a.image.name not in refused)
    said = f"pid {status.pid}: {others} not patched either, so that no edit is half there: {', '.join(refused)} was refused"
    return report.Result({}, problems=[report.Line(said, "bold red")] if others else [], exit_code=1)


def groups(builds: Mapping[int, Sequence[str]]) -> list[list[int]]:
    """Processes (by pid) that run the same build, or are connected by builds that they share, are patched together."""
    found: list[tuple[set[str], list[int]]] = []
    for pid, mine in builds.items():
        shared, members = set(mine), [pid]
        for other in [g for g in found if g[0] & shared]:
            found.remove(other)
            shared, members = other[0] | shared, other[1] + members
        found.append((shared, members))
    return [members for _, members in found]


def patch_group(store: Store, group: Sequence[tuple[process.ProcessStatus, Sequence[str]]], names: Mapping[str, str],
                request: HotpatchRequest) -> list[report.Result]:
    """`group`: processes with their builds; `names`: build-id -> program."""
    steps: dict[int, list[Step]] = {}
    unable: dict[int, Exception] = {}
    for status, builds in group:
        try:
            steps[status.pid] = steps_of(store, status, builds)
        except (HotreloadError, OSError) as e:
            unable[status.pid] = e
    if unable:
        return [_left_out(names, {**unable, **{pid: together.left_alone() for pid in steps}})]
    return bring_up_to_date(store, steps, names, request)


def steps_of(store: Store, status: process.ProcessStatus, builds: Sequence[str]) -> list[Step]:
    """What the process lacks of the chains of its images, and of libraries that it may load, oldest first; one request
    each. Raises NotForImage."""
    waiting = {b: _lacking(store, status, b) for b in builds}
    steps: list[Step] = []
    while any(waiting.values()):
        step = {b: chain.pop(0).image(b) for b, chain in waiting.items() if chain}
        steps.append({b: patch for b, patch in step.items() if patch is not None})
    return steps


def _lacking(store: Store, status: process.ProcessStatus, build_id: str) -> list[bundle.Bundle]:
    """What the process has not taken of the chain of an image, or was not given of that of a library to come."""
    chain = store.bundles(build_id)
    loaded = [(i.generation, i.id) for i in status.images if i.build_id == build_id]
    kept = [(k.generation, k.ids[-1]) for k in status.kept if k.build_id == build_id]
    generations = loaded or kept or [(0, "")]
    for generation, identity in generations:
        _check_history(status.pid, build_id, generation, identity, chain)
    return chain[min(generations)[0]:]


def bring_up_to_date(store: Store, steps: Mapping[int, Sequence[Step]], names: Mapping[str, str],
                     request: HotpatchRequest) -> list[report.Result]:
    """Take the steps of each process (by pid). Those that lack more begin, so that the last step is one for all of them;
    whoever takes a step takes it together with the others. Where one fails, the steps before it stand."""
    results: list[report.Result] = []
    for left in range(max(map(len, steps.values()), default=0), 0, -1):
        now = {pid: mine[-left] for pid, mine in steps.items() if len(mine) >= left}
        outcome, seconds = take_step(store, now, request)
        results += [report.applied(names[b], [report.image_outcome(pid, patch[0], answer.document, seconds[pid])])
                    for pid, answer in outcome.results.items() for b, patch in now[pid].items()]
        if outcome.failures:
            waiting = {pid: together.left_alone() for pid in steps if pid not in now}
            return [*results, _left_out(names, {**outcome.failures, **waiting})]
    return results


def take_step(store: Store, step: Mapping[int, Step], request: HotpatchRequest) -> tuple[together.Outcome, dict[int, float]]:
    """One generation in all of these processes or in none; also how long each took, in seconds."""
    seconds: dict[int, float] = {}

    def ask(pid: int, ballot: int | None) -> process.ApplyResult:
        begun = time.monotonic()
        files = [store.payload(patch[1]) for patch in step[pid].values()]
        answer = process.apply(pid, files, when=request.when, timeout=request.timeout, ballot=ballot,
                               guard=request.guard, for_later=True)
        seconds[pid] = time.monotonic() - begun
        return answer

    with timings.span("apply"):
        return together.take({pid: partial(ask, pid) for pid in step}), seconds


def _left_out(names: Mapping[str, str], failures: Mapping[int, Exception]) -> report.Result:
    explained = [(pid, blockers.explain(pid, e)) for pid, e in failures.items()]
    return report.applied(", ".join(dict.fromkeys(names.values())), [], explained)


def _check_history(pid: int, build_id: str, generation: int, identity: str, chain: Sequence[bundle.Bundle]) -> None:
    """The process must have taken exactly the first bundles of this chain."""
    if generation == 0:
        return
    patch = chain[generation - 1].image(build_id) if generation <= len(chain) else None
    if patch is None or patch[0]["id"] != identity:
        raise NotForImage(f"process {pid} is at generation {generation} by patches that were not made in this tree; "
                          "restart it, or patch it from where they were made")


# ---- words --------------------------------------------------------------------------------------


def _failed(name: str, error: Exception) -> report.Result:
    failed = report.failure(error)
    failed.problems = [report.Line(f"{name}: not patched", "bold red"), *failed.problems]
    failed.exit_code = failed.exit_code or 1
    return failed


def _left(name: str, made: Path) -> report.Result:
    entry = bundle.read(made).manifest["images"][0]
    changed = report.names(f["name"] for f in (*entry["changed"], *entry["added"]))
    return report.Result({"bundle": str(made)}, [
        report.Line(f"{name}: no process runs this build; generation {entry['generation']} is in {made}", "bold"),
        report.Line(f"  changed or new: {changed or 'data only'}")])
