"""Image + bundles ≡ new image: every function and constant of a fresh link of the new source has its equal in the process.

Nothing that the builder stored is read. What a name means is found out from symbols, slots and stubs, what a function or
constant is from its machine code or bytes (`lockstep`), what unwinding through it does from the unwind tables (`handlers`).
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from .. import names
from ..payload import NEW_SUFFIX
from . import distances, handlers, lines, steps
from .instructions import targets
from .linked import OBJECT, Linked, Unreadable
from .lockstep import Different, Lockstep, Pair
from .owners import Owners
from .side import Side, functions_of
from .space import Space
from .tables import Payload
from .updates import is_numbered, without_number
from .verdict import Verdict

_DAMAGE = (Unreadable, IndexError, ValueError, KeyError, OverflowError)
_RUNTIME = "hr_"                 # the runtime's own symbols: part of the image, and never patched
_LINKER_MADE = (".hotreload", ".init_array", ".fini_array", ".preinit_array", ".dynamic", ".got", ".interp", ".note", ".gnu",
                ".dynsym", ".dynstr", ".rela", ".hash", ".eh_frame", ".tm_clone_table", ".comment")


@dataclass
class Comparison:
    """What came of it: names, and for each that differs the first difference."""
    same: dict[str, str] = field(default_factory=dict)             # -> digest, 32 hex digits
    missing: list[str] = field(default_factory=list)
    unreached: list[str] = field(default_factory=list)             # missing, and nothing that runs refers to it
    different: dict[str, str] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)                  # in the process as built, no longer in the source
    kept: list[str] = field(default_factory=list)                  # variables that start otherwise in the new image
    noise: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return dict(vars(self))


def compare(image: Linked, payloads: list[Payload], new: Linked, brief: bool = False) -> Comparison:
    """The patched process beside the new image; `brief`: no further, if what the payloads bring differs. Raises Unreadable if a
    file's symbols or headers can't be made sense of."""
    work = _Work(_fresh(new), Side(Space(image, payloads)))
    return work.found if brief and work.payloads_differ() else work.run()


def report(verdict: Verdict, subject: str, image: Linked, payloads: list[Payload], new: Linked, brief: bool = False) -> None:
    """Run the three checks and record what they found; `brief`: not all that differs is looked for."""
    checks = ("completeness-missing", "completeness-different", "completeness-extra")
    if not new.symbols:
        for check in checks:
            verdict.cannot(check, subject, f"{new.where} has no symbols; give the image before it is stripped")
        return
    try:
        found = compare(image, payloads, new, brief)
    except _DAMAGE as e:
        verdict.found("completeness-different", subject, [f"the images cannot be compared: {e or type(e).__name__}"])
        for check in (checks[0], checks[2]):
            verdict.cannot(check, subject, "the images cannot be compared")
        return
    verdict.found(checks[0], subject, (f"{name} is not in the process" for name in found.missing),
                  _counted(found.unreached, "not brought, and nothing that runs refers to it"))
    verdict.found(checks[1], subject, (f"{name}: {why}" for name, why in found.different.items()),
                  [f"{len(found.same)} functions and constants are the same", *_counted(found.noise, "source lines alone differ"),
                   *_counted(found.kept, "starts with another value in the new image, and the live value stays")])
    verdict.found(checks[2], subject, (f"{name} is in a bundle and not in the new image" for name in found.extra),
                  _counted(found.left, "stays in the process for old callers, no longer in the source"))
    verdict.details.setdefault("completeness", {})[subject] = found.document()


def _counted(which: list[str], what: str) -> list[str]:
    return [f"{what}: {', '.join(which[:8])}" + (f" and {len(which) - 8} more" if len(which) > 8 else "")] if which else []


class _Work:
    def __init__(self, fresh: _Fresh, old: Side) -> None:
        self.fresh, self.new, self.old = fresh, fresh.side, old
        self.found = Comparison()
        owners = Owners(self.new, Side(Space(old.space.image, old.space.payloads[:-1])))
        self.lock = Lockstep(self.new, old, lambda: fresh.boundaries, fresh.steps, owners.agree, self._is_noise,
                             lambda: fresh.tables)

    def _is_noise(self, new_at: int, old_at: int, new: int, old: int) -> bool:
        """Whether two numbers in two instructions are the source lines that these stand in."""
        return lines.own(self.new.space.file_at(new_at), new_at, new) and lines.own(self.old.space.file_at(old_at), old_at, old)

    def run(self) -> Comparison:
        missing = self.functions()
        self.drain()
        elsewhere = self.plain_functions()
        self.drain()
        missing += self.functions_of_other_files(elsewhere)
        self.drain()
        missing += self.objects()
        self.drain()
        self.sort_missing(missing)
        self.find_extra()
        self.found.noise = list(dict.fromkeys(self.lock.noise))
        return self.found

    def payloads_differ(self) -> bool:
        """Whether code or data that the payloads bring differs from the new image's."""
        brought = self.old.space.payloads
        for name in sorted(self.new.entries.keys() & self.old.entries.keys()):
            code = self.old.body(name)
            if any(p.file.load_of(code) for p in brought):
                self._try(name, self.new.body(name), code, name)
        self.drain()
        for name, address in self._named_objects():
            old = self.old.data.get(name)
            if old is not None and any(p.file.load_of(old) for p in brought):
                self._object(name, address, [old])
        self.drain()
        return bool(self.found.different)

    def _try(self, name: str, new: int, old: int, owner: str) -> None:
        """Compare code, and note under `name` what came of it."""
        try:
            self.found.same.setdefault(name, self._code(new, old, owner))
        except Different as e:
            self.found.different.setdefault(name, str(e))
        except _DAMAGE as e:
            self.found.different.setdefault(name, f"it cannot be read: {e or type(e).__name__}")

    # ---- functions ----------------------------------------------------------------------------------------------

    def functions(self) -> list[tuple[str, int]]:
        """Compare all functions with stubs; returns those that the process lacks, with their code in the new image."""
        missing = []
        for name in sorted(self.new.entries):
            if name in self.old.entries:
                self._try(name, self.new.body(name), self.old.body(name), name)
            else:
                missing.append((name, self.new.entries[name]))
        return missing

    def _code(self, new: int, old: int, owner: str) -> str:
        sizes = self._size(self.new, new), self._size(self.old, old)
        if sizes[0] != sizes[1]:
            raise Different(f"{sizes[0]} bytes of code there, {sizes[1]} here")
        if self.new.follows(new) != self.old.follows(old):
            raise Different("it goes on into other code behind its end")
        digest = self.lock.code(new, old, sizes[0], owner)
        handlers.compare(self.lock, new, old, owner)
        return digest

    @staticmethod
    def _size(side: Side, code: int) -> int:
        return max((s.size for s in side.functions_at(code)), default=0)

    def plain_functions(self) -> list[tuple[int, list[str], list[int]]]:
        """Queue functions without stubs (uninstrumented objects, the C library's start code) to be compared with the image's of
        their name and source file, but for those that were met where live code refers to them: a bundle may have brought these.
        Returns what the image has none of: (code, names, what bears one of them in other files)."""
        theirs: dict[str, list[int]] = {}
        for address, known in self.old.plain_functions().items():
            for name in known:
                theirs.setdefault(name, []).append(address)
        met, rest = self.lock.met_new(), []
        for address, known in self.new.plain_functions().items():
            candidates = list(dict.fromkeys(a for name in known for a in theirs.get(name, [])))
            if address in met or _is_fragment(known):      # which belongs to whatever refers to it, and is met there
                continue
            units = self._units(self.new, address, known)
            fitting = [a for a in candidates if self._units(self.old, a, known) == units]
            if len(fitting) == 1:
                self.lock.queue(Pair("code", address, fitting[0], 0, known[0]))
            elif not fitting:
                rest.append((address, known, candidates))
        return rest

    @staticmethod
    def _units(side: Side, code: int, known: list[str]) -> set[str | None]:
        return {side.space.image.units.get((name, code)) for name in known}

    def functions_of_other_files(self, rest: list[tuple[int, list[str], list[int]]]) -> list[tuple[str, int]]:
        """Functions without stubs that the image does not have in their source file, which may have been renamed. Returns those
        that are in none."""
        met, missing = self.lock.met_new(), []
        for address, known, candidates in rest:
            if address in met:
                continue
            if len(candidates) == 1:
                self.lock.queue(Pair("code", address, candidates[0], 0, known[0]))
            elif not candidates:
                missing.append((known[0], address))
        return missing

    def drain(self) -> None:
        """Walk everything that was met so far."""
        while self.lock.waiting:
            pair = self.lock.waiting.pop()
            if pair.kind == "code":
                self._try(self._called(pair), pair.new, pair.old, pair.owner)
            else:
                try:
                    self.lock.nameless(pair)
                except (Different, *_DAMAGE) as e:
                    self.found.same.pop(pair.owner, None)
                    self.found.different.setdefault(pair.owner, f"a constant it uses, at {pair.new:#x} there and {pair.old:#x} "
                                                    f"here: {e}")

    def _called(self, pair: Pair) -> str:
        known = sorted(s.name for s in self.new.functions_at(pair.new))
        if known and known[0] not in self.new.entries:
            return known[0]
        return f"{known[0] if known else hex(pair.new)} ({pair.owner})"

    # ---- data ---------------------------------------------------------------------------------------------------

    def objects(self) -> list[tuple[str, int]]:
        missing = []
        for name, address in self._named_objects():
            old = self.lock.counterpart(address)
            candidates = self._candidates(name, self.new.is_constant(address)) if old is None else [old]
            if not candidates:
                missing.append((name, address))
            else:
                self._object(name, address, candidates)
        return missing

    def _named_objects(self) -> Iterator[tuple[str, int]]:
        for name, address in sorted(self.new.data.items()):
            section = self.new.space.image.section_of(address)
            if section is not None and not section.name.startswith(_LINKER_MADE) and not name.startswith(_RUNTIME) \
                    and not name.endswith(names.SLOT_SUFFIX):
                yield name, address

    def _candidates(self, name: str, constant: bool) -> list[int]:
        """Objects of the process that may be the one of this name; several where numbers of static locals say nothing."""
        own = [self.old.data[name]] if name in self.old.data else []
        return own + (self._by_stem.get(without_number(name), []) if constant and is_numbered(name) else [])

    @cached_property
    def _by_stem(self) -> dict[tuple[str, str], list[int]]:
        found: dict[tuple[str, str], list[int]] = {}
        for name, address in self.old.data.items():
            if self.old.is_constant(address):
                found.setdefault(without_number(name), []).append(address)
        return found

    def _object(self, name: str, new: int, candidates: list[int]) -> None:
        """Of several constants any that is the same will do; what differs is told of the first."""
        size = max(s.size for s in self.new.space.symbols_at(new) if s.type == OBJECT)
        constant = self.new.is_constant(new)
        said, waiting = [], len(self.lock.waiting)
        for old in candidates:
            try:
                digest = self.lock.content(new, old, size, name)
            except (Different, *_DAMAGE) as e:
                said.append(str(e))
                self.lock.forget(waiting)
            else:
                if constant:
                    self.found.same.setdefault(name, digest)
                said = []
                break
        misfit = "" if constant else self._misfit(candidates[0], size)
        if misfit or said and (constant or self.old.space.file_at(candidates[0]) is not self.old.space.image):
            self.found.different.setdefault(name, misfit or said[0])
        elif said and self._is_written_as_new(name, new, candidates[0], size):
            self.found.kept.append(name)

    def _is_written_as_new(self, name: str, new: int, old: int, size: int) -> bool:
        """Whether those parts of a variable that the newest generation writes take what the new image has there."""
        written = self.old.space.payloads[-1].updates if self.old.space.payloads else []
        try:
            for u in written:
                low, high = max(u.address, old), min(u.address + u.size, old + size)
                if low < high:
                    self.lock.content(new + low - old, low, high - low, name)
        except (Different, *_DAMAGE) as e:
            self.found.different.setdefault(name, f"what is written to it {e}")
            return False
        return True

    def _misfit(self, old: int, size: int) -> str:
        """What forbids a variable of `size` bytes to be the one at `old`, whatever it holds."""
        if self.old.is_constant(old):
            return "the program writes it, and it lies in memory that is read-only here"
        found = self.old.space.object_at(old)
        room = found[1] - old if found is not None else size
        return f"{size} bytes there, and room for {room} here" if size > room else ""

    # ---- missing and extra --------------------------------------------------------------------------------------

    def sort_missing(self, missing: list[tuple[str, int]]) -> None:
        """What nothing that runs refers to is not brought by a patch, and not missed."""
        reached = self.fresh.reached if missing else set()
        for name, address in missing:
            (self.found.missing if address in reached else self.found.unreached).append(name)

    def find_extra(self) -> None:
        payloads = self.old.space.payloads
        for payload in payloads:
            known = self.found.extra if payload is payloads[-1] else self.found.left
            known += [n for n in payload.own_slots.values() if n not in self.new.entries]
            changed = [self.old.space.slots.get(r.slot, hex(r.slot)) for r in payload.redirects]
            known += [n for n in changed if n not in self.new.entries]
            known += self._extra_objects(payload)
        image = [n for n in self.old.entries if n not in self.new.entries and n not in self.found.extra]
        self.found.left = list(dict.fromkeys(self.found.left + image))

    def _extra_objects(self, payload: Payload) -> Iterable[str]:
        """Named objects of a payload that the new image has under no name."""
        taken = {self.lock.counterpart(a) for a in self.new.data.values()}
        own = {s.name: s.value for s in payload.file.symbols if s.type == OBJECT and s.defined and s.size
               and payload.file.load_of(s.value) and not s.name.endswith((NEW_SUFFIX, names.SLOT_SUFFIX))}
        return [n for n, at in own.items() if names.LOCAL_SEPARATOR in n and n not in self.new.data and at not in taken]


# ---- the new image by itself ----------------------------------------------------------------------------------------


class _Fresh:
    """The new image, and what is found out about it alone: with the next bundle that is compared with it, it is the same."""

    def __init__(self, file: Linked) -> None:
        self.side = Side(Space(file))
        self._steps: dict[tuple[int, int], list[steps.Step]] = {}

    def steps(self, code: int, size: int) -> list[steps.Step]:
        known = self._steps.get((code, size))
        if known is None:
            known = self._steps[code, size] = steps.of(self.side, self.side.space.read(code, size), code)
        return known

    @cached_property
    def _references(self) -> dict[int, list[int]]:
        """Every function of the new image -> the addresses its code refers to."""
        file = self.side.space.image
        return {s.value: list(targets(file.read(s.value, s.size), s.value)) for s in functions_of(file)[1]}

    @cached_property
    def tables(self) -> dict[int, list[int]]:
        """Tables of distances to constants, and to what their entries lead."""
        return distances.tables(self.side.space.image, self._referred)

    @cached_property
    def boundaries(self) -> list[int]:
        """Places in the new image at which something begins: symbols, and all that code or data refers to."""
        return sorted(self._referred | {target for listed in self.tables.values() for target in listed})

    @cached_property
    def _referred(self) -> set[int]:
        file = self.side.space.image
        found = {a for a, known in file.by_address.items() for s in known if not file.executable(a)}
        found |= {s.value + s.size for known in file.by_address.values() for s in known if s.type == OBJECT}
        found |= {t for known in self._references.values() for t in known}
        return found | self.side.held_addresses

    @cached_property
    def reached(self) -> set[int]:
        """Addresses of the new image that something reaches from where it starts, or from what it exports: of functions the
        stub, of objects the first byte."""
        file = self.side.space.image
        pointers: dict[int, list[int]] = {}
        for r in file.relocations:
            place = self.side.object_at(r.offset)
            target = r.addend if not r.symbol else file.dynamic_symbol(r.symbol).symbol.value + r.addend
            pointers.setdefault(place.start if place else -1, []).append(target)
        waiting = [file.entry, *pointers.get(-1, [])]
        waiting += [s.value for s in file.symbols if s.defined and s.name in ("main", "_init", "_fini")]
        waiting += [a for name, a in (*self.side.entries.items(), *self.side.data.items()) if name in self._exported]
        met: set[int] = set()
        while waiting:
            address = waiting.pop()
            for at in self._whole(address):
                if at not in met:
                    met.add(at)
                    waiting += [*self._references.get(at, ()), *pointers.get(at, ())]
                    if at in self.side.space.stubs:
                        waiting.append(self.side.space.slot_holds(self.side.space.stubs[at]))
        return met

    @cached_property
    def _exported(self) -> set[str]:
        from .imports import exports
        return set(exports(self.side.space.image))

    def _whole(self, address: int) -> list[int]:
        """The things that hold an address, by their first bytes."""
        code, data = self.side.function_at(address), self.side.object_at(address)
        return [p.start for p in (code, data) if p is not None]


@lru_cache(maxsize=4)
def _fresh(new: Linked) -> _Fresh:
    return _Fresh(new)


def _is_fragment(known: Iterable[str]) -> bool:
    return any(part in name for name in known for part in (".cold", ".constprop.", ".isra.", ".part."))
