"""Whether a bundle is sound, shown anew from its bytes and its image's: nothing that the builder said is taken for true.

`container` checks the file, `elfcheck`, `redirects`, `transience`, `updates`, `imports` and `agreement` one payload each
beside its image; `completeness` compares image and bundles with a fresh link of the new source. `linked`, `frames`, `tables`
and `space` read the files. Nothing on the way from an edit to a process imports this.

What depends on one file alone is computed once for it and kept (`lru_cache` by file or by content): whoever verifies many bundles
with one `Given` pays for the images once.
"""
from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import agreement, completeness, container, elfcheck, form, imports, redirects, transience, updates
from .container import Contents
from .linked import Linked, Unreadable
from .space import Space
from .tables import Payload
from .verdict import Verdict

_NO_PARENT = "0" * 64
_DAMAGE = (Unreadable, struct.error, IndexError, ValueError, OverflowError, KeyError, MemoryError, RecursionError)
_NOT_WHOLE = "the payload is not in canonical form"
COMPLETENESS = ("completeness-missing", "completeness-different", "completeness-extra")
_OF_IMAGE = ("segments-in-arena", "redirect-slots", "redirect-old-code", "old-code-parts", "references", "data-updates",
             "imports", "new-functions")
_OF_PAYLOAD = ("payload-header", "canonical-form", "segments-layout", "segments-protection", "executable-stack",
               "text-relocations", "relocation-places", "relocation-kinds", "no-start-code", "no-exports", "tables",
               "redirect-new-code", "unwind-tables", "transient", "manifest-agrees", "build-id")


@dataclass
class Given:
    """What a bundle is verified with."""
    images: Sequence[Path] = ()          # linked images, found by their build-ids
    earlier: Sequence[Path] = ()         # bundles of the generations before
    against: Sequence[Path] = ()         # images linked from the new source
    brief: bool = False                  # with these: what is not sound need not be told in full
    _read: dict[Path, Linked] = field(default_factory=dict)
    _spaces: dict[str, Space] = field(default_factory=dict)

    def linked(self, path: Path) -> Linked:
        """An image, read once for all bundles that are verified with it. Raises Unreadable, OSError."""
        if path not in self._read:
            self._read[path] = Linked(path.read_bytes(), str(path))
        return self._read[path]

    def image(self, build_id: str) -> tuple[Path, Linked] | None:
        for path in self.images:
            if self.linked(path).build_id == build_id:
                return path, self.linked(path)
        return None

    def space(self, image: Linked, payloads: list[Payload]) -> Space:
        """The image alone is asked for again with each bundle of a first generation."""
        if payloads:
            return Space(image, payloads)
        return self._spaces.setdefault(image.build_id, Space(image))


def verify(path: Path, given: Given) -> Verdict:
    """Every check of the bundle at `path`. Raises OSError; whatever the bytes of the files are, nothing else."""
    return verify_bytes(path.read_bytes(), str(path), given)


def verify_bytes(data: bytes, where: str, given: Given) -> Verdict:
    """The same of a bundle that is in memory."""
    verdict = Verdict(where)
    contents = container.check(data, verdict)
    if contents is None:
        for check in ("payload-elf", *_OF_PAYLOAD, *_OF_IMAGE, "generation-chain"):
            verdict.cannot(check, "bundle", "the file is not sound")
        return verdict
    for number, entry in enumerate(contents.images):
        _verify_image(verdict, contents, number, entry, given)
    return verdict


def _verify_image(verdict: Verdict, contents: Contents, number: int, entry: dict[str, Any], given: Given) -> None:
    name = f"payload-{number}.so"
    payload = _read_payload(verdict, contents.payload(number), name, entry)
    if payload is None:
        return
    run = _Runner(verdict, name)
    _check_payload(run, payload, entry)
    try:
        found = given.image(entry["build_id"])
    except Unreadable as e:
        found = None
        verdict.found("build-id", name, [str(e)])
    chain = _chain(verdict, name, entry, given)
    space = None
    if found is not None and chain is not None:
        space = given.space(found[1], chain)
    run("build-id", lambda: _build_id_problems(payload, entry))
    run("relocation-kinds", lambda: elfcheck.relocation_kind_problems(payload, space))
    run.slowly("unwind-tables", lambda: elfcheck.unwind_problems(payload, space))
    run("manifest-agrees", lambda: agreement.problems(payload, entry, space))
    run("redirect-new-code", lambda: redirects.new_code_problems(payload, space.slots if space else None))
    if space is None or found is None or chain is None:
        why = (f"no image with build-id {entry['build_id']} is at hand; name it with --image" if found is None
               else "the generations before it are not at hand")
        for check in (*_OF_IMAGE, *(COMPLETENESS if given.against else ())):
            verdict.cannot(check, name, why)
        return
    _check_beside_image(run, payload, entry, space)
    _check_imports(verdict, name, payload, found[1], found[0])
    if run.whole:
        _compare(verdict, name, [*space.payloads, payload], space, given, len(contents.images))
    else:
        for check in COMPLETENESS if given.against else ():
            verdict.cannot(check, name, _NOT_WHOLE)


def _read_payload(verdict: Verdict, data: bytes, name: str, entry: dict[str, Any]) -> Payload | None:
    problems: list[str] = []
    payload = None
    try:
        file = Linked(data, name)
        problems = list(elfcheck.kind_problems(file, entry))
        payload = Payload(file)
    except _DAMAGE as e:
        problems.append(str(e))
    if verdict.found("payload-elf", name, problems):
        return payload
    for check in (*_OF_PAYLOAD, *_OF_IMAGE, "generation-chain"):
        verdict.cannot(check, name, "the payload cannot be read")
    return None


class _Runner:
    """Runs checks of one payload; what cannot be read is a problem, not a crash."""

    def __init__(self, verdict: Verdict, subject: str) -> None:
        self.verdict, self.subject = verdict, subject
        self.whole = True             # the payload has the form by which the time of all checks is bounded

    def __call__(self, check: str, problems: Callable[[], Iterable[str]]) -> bool:
        found: list[str] = []
        try:
            for problem in problems():
                found.append(problem)
        except _DAMAGE as e:
            found.append(f"it cannot be read: {e or type(e).__name__}")
        return self.verdict.found(check, self.subject, found)

    def slowly(self, check: str, problems: Callable[[], Iterable[str]]) -> None:
        """A check that reads all of the code or data that symbols and tables speak of."""
        if self.whole:
            self(check, problems)
        else:
            self.verdict.cannot(check, self.subject, _NOT_WHOLE)


def _check_payload(run: _Runner, payload: Payload, entry: dict[str, Any]) -> None:
    file = payload.file
    run.whole = run("canonical-form", lambda: form.problems(payload))
    run("payload-header", lambda: elfcheck.header_problems(payload, entry))
    run("segments-layout", lambda: elfcheck.layout_problems(file))
    run("segments-protection", lambda: elfcheck.protection_problems(file))
    run("executable-stack", lambda: elfcheck.stack_problems(file))
    run("text-relocations", lambda: elfcheck.text_relocation_problems(file))
    run("relocation-places", lambda: elfcheck.place_problems(file))
    run("no-start-code", lambda: elfcheck.start_problems(payload))
    run("no-exports", lambda: elfcheck.export_problems(file))
    run("tables", lambda: elfcheck.table_problems(payload))
    run.slowly("transient", lambda: transience.problems(payload))


def _build_id_problems(payload: Payload, entry: dict[str, Any]) -> Iterable[str]:
    """The image was found by the manifest's build-id, so the payload's is the one that could differ."""
    if payload.header.build_id != entry["build_id"]:
        yield f"the payload is for build-id {payload.header.build_id}, the manifest for {entry['build_id']}"


def _check_beside_image(run: _Runner, payload: Payload, entry: dict[str, Any], space: Space) -> None:
    run("segments-in-arena", lambda: elfcheck.arena_problems(payload, entry, space, space.payloads))
    run("redirect-slots", lambda: redirects.slot_problems(payload, space))
    run("redirect-old-code", lambda: redirects.old_code_problems(payload, space))
    run("old-code-parts", lambda: redirects.part_problems(payload, space))
    run.slowly("new-functions", lambda: redirects.new_function_problems(payload, space))
    run.slowly("references", lambda: redirects.reference_problems(payload, space))
    run.slowly("data-updates", lambda: updates.problems(payload, entry, space))


def _check_imports(verdict: Verdict, name: str, payload: Payload, image: Linked, path: Path) -> None:
    try:
        problems, why = imports.problems(payload, image, path)
    except (*_DAMAGE, OSError) as e:
        problems, why = [str(e)], ""
    if why:
        verdict.cannot("imports", name, why)
    else:
        verdict.found("imports", name, problems)


def _compare(verdict: Verdict, name: str, payloads: list[Payload], space: Space, given: Given, images: int) -> None:
    """Completeness, against the new image of this one's name: the only one, or the one that shares a file name with it."""
    if not given.against:
        return
    own = Path(space.image.where).name
    candidates = [p for p in given.against if p.name == own or _soname_of(p) == imports.soname(space.image) != ""]
    if not candidates and images == len(given.against) == 1:
        candidates = list(given.against)
    if len(candidates) != 1:
        for check in COMPLETENESS:
            verdict.cannot(check, name, f"none of the new images is the one for {own}; give one that is called so")
        return
    try:
        new = given.linked(candidates[0])
    except Unreadable as e:
        for check in COMPLETENESS:
            verdict.cannot(check, name, str(e))
        return
    completeness.report(verdict, name, space.image, payloads, new, given.brief)


def _soname_of(path: Path) -> str:
    try:
        return imports.soname(Linked(path.read_bytes(), str(path)))
    except _DAMAGE:
        return ""


# ---- generations ------------------------------------------------------------------------------------------------


def _chain(verdict: Verdict, name: str, entry: dict[str, Any], given: Given) -> list[Payload] | None:
    """The payloads of the generations before this one, oldest first; None if they are not all at hand."""
    found: list[Payload] = []
    generation, parent = entry["generation"], entry["parent"]
    while generation > 1:
        before = _find(given.earlier, entry["build_id"], parent)
        if before is None:
            verdict.cannot("generation-chain", name, f"generation {generation - 1} ({parent[:12]}…) is not at hand; name its "
                           "bundle with --after")
            return None
        earlier, payload = before
        if earlier["generation"] != generation - 1:
            verdict.found("generation-chain", name, [f"generation {generation} names generation {earlier['generation']} as its "
                                                     "parent"])
            return None
        found.insert(0, payload)
        generation, parent = earlier["generation"], earlier["parent"]
    verdict.found("generation-chain", name, [] if parent == _NO_PARENT else [f"generation 1 names {parent} as its parent"])
    return found


def _find(bundles: Iterable[Path], build_id: str, identity: str) -> tuple[dict[str, Any], Payload] | None:
    """The manifest entry and payload of one generation, from a bundle whose own file is sound."""
    for path in bundles:
        contents = container.check(path.read_bytes(), Verdict(str(path)))
        for number, entry in enumerate(contents.images if contents else []):
            if (entry["build_id"], entry["id"]) == (build_id, identity) and contents is not None:
                try:
                    return entry, Payload(Linked(contents.payload(number), str(path)))
                except _DAMAGE:
                    continue
    return None


def chain(path: Path, given: Given) -> list[Path]:
    """The bundles at hand of the generations before the bundle at `path`, oldest first."""
    found: list[Path] = []
    contents = container.check(path.read_bytes(), Verdict(str(path)))
    parents = {entry["parent"] for entry in contents.images} if contents else set()
    for _ in range(len(given.earlier)):
        for candidate in given.earlier:
            before = container.check(candidate.read_bytes(), Verdict(str(candidate)))
            if before is not None and candidate not in found and parents & {entry["id"] for entry in before.images}:
                found.insert(0, candidate)
                parents = {entry["parent"] for entry in before.images}
    return found
