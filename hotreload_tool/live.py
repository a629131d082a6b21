"""The live state: what lives where in a process, after an image was loaded and some generations were applied.

All addresses are image-relative (docs/formats.md). Everything is kept in mappings by name, so that a patch costs what it
touches and not what the program is large. Of an image with an index (index.py) they look up what is asked for: go through
all names of one only where there is no other way.
"""
from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from . import arch, difference
from .definers import Definers, Redefined
from .difference import Definition, Retired
from .errors import Damaged, NotForImage, Refusal, Refused
from .layered import Layered, later
from .names import BODY_SUFFIX, CALL_SUFFIX, LOCAL_SEPARATOR, RUNTIME_PREFIX, SLOT_SUFFIX, TLS_RESERVE
from .objectmap import DataEntry, FunctionEntry, ObjectMap

if TYPE_CHECKING:
    from .index import Index

_BEHIND = 64            # bytes between the end of a function's code and its stub, at most: alignment
NO_ID = "0" * 64       # the id of generation 0: the image as built


class ImageSymbol(NamedTuple):
    """A defined symbol of the image's symbol table; versions ("@GLIBC_2.2.5") are cut off."""
    name: str
    address: int       # offset in the TLS segment if `type` is "TLS"
    size: int
    type: str          # "NOTYPE" | "OBJECT" | "FUNC" | "TLS" | "IFUNC"
    binding: str       # "LOCAL" | "GLOBAL" | "WEAK"
    visibility: str    # "DEFAULT" | "INTERNAL" | "HIDDEN" | "PROTECTED"
    section: str       # name of its section, "*ABS*" if none


class TlsSegment(NamedTuple):
    """PT_TLS. On x86-64 the executable's symbol at offset `o` lies at `o - round_up(size, align)` from the thread
    pointer (ELF Handling For Thread-Local Storage, variant II)."""
    address: int
    size: int          # p_memsz
    align: int


@dataclass
class ImageFacts:
    """What the tool needs to know of a linked image. `baseline.read_image` makes it from a file."""
    path: str
    build_id: str                                   # hexadecimal
    kind: str                                       # "exec" | "pie" | "shared"
    machine: int                                    # e_machine
    maps: list[ObjectMap]                           # in link order
    symbols: list[ImageSymbol]
    slots: dict[int, int]                           # address of a slot -> the code's address it holds at start
    arena: tuple[int, int]                          # (address, size in bytes)
    tls: TlsSegment | None = None
    exported: list[str] = field(default_factory=list)   # names in the dynamic symbol table
    needed: list[str] = field(default_factory=list)     # DT_NEEDED
    runpath: list[str] = field(default_factory=list)    # DT_RUNPATH, or DT_RPATH

    def to_json(self) -> dict[str, Any]:
        return {**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
                "maps": [m.to_json() for m in self.maps], "slots": list(self.slots.items())}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> ImageFacts:
        """Raises KeyError, TypeError, ValueError for anything `to_json` did not make."""
        fields = dict(doc)
        fields["maps"] = [ObjectMap.from_json(m) for m in fields["maps"]]
        fields["symbols"] = [ImageSymbol(*s) for s in fields["symbols"]]
        fields["slots"] = {int(address): int(code) for address, code in fields["slots"]}
        fields["arena"] = (int(fields["arena"][0]), int(fields["arena"][1]))
        fields["tls"] = TlsSegment(*fields["tls"]) if fields["tls"] else None
        return cls(**fields)


@dataclass(frozen=True)
class LiveFunction:
    """One function that lives in the process."""
    name: str
    object: str
    entry: int                 # of the stub; never changes
    slot: int | None           # None: no stub in this image, so it cannot be patched
    body: int | None           # of the code that runs now; None without a slot
    size: int                  # bytes of it
    digest: str
    signature: str | None
    generation: int            # that brought this body; 0: the image
    lead: int = 0              # bytes of a head that its symbol begins with, before the body
    head: int | None = None    # the two bytes of the image's code that must be a jump; None: it has a stub

    @property
    def patchable(self) -> bool:
        return self.slot is not None


@dataclass(frozen=True)
class LiveData:
    """One variable or constant that lives in the process."""
    name: str
    object: str
    address: int               # for thread-locals the offset in the image's TLS segment
    size: int
    extent: int                # bytes it may grow to
    digest: str                # of the initialiser it was made with, or of the content it was last given
    kind: str                  # objectmap.DataEntry.kind
    type: str | None
    generation: int            # that brought it
    align: int = 1
    retired: int | None = None  # generation in whose source it no longer was; it keeps its memory and value


class Placed(NamedTuple):
    """What one generation took of the arena; image-relative, page-aligned."""
    generation: int
    start: int
    end: int
    transient: bool            # its addresses are free again when its functions are superseded


@dataclass
class LiveState:
    """One image in a process, and the generations it took."""
    build_id: str
    kind: str
    path: str
    facts: ImageFacts
    arena: tuple[int, int]                 # (address, size in bytes)
    arena_used_end: int                    # payloads lie between the arena's address and this
    payloads: list[Placed] = field(default_factory=list)                # oldest first
    generation: int = 0
    id: str = NO_ID
    maps: MutableMapping[str, ObjectMap] = field(default_factory=dict)  # object -> its latest map, in link order
    functions: MutableMapping[str, LiveFunction] = field(default_factory=dict)
    data: MutableMapping[str, LiveData] = field(default_factory=dict)
    types: MutableMapping[str, Set[str]] = field(default_factory=dict)  # type-unit signature -> objects that have it
    symbols: MutableMapping[str, int] = field(default_factory=dict)     # of the image's uninstrumented parts
    tls_symbols: MutableMapping[str, int] = field(default_factory=dict)  # the same for thread-locals: offsets
    ifuncs: set[str] = field(default_factory=set)                       # resolved at load time: no address to bind to
    definitions: MutableMapping[str, Collection[Definition]] = field(default_factory=dict)    # name -> who, in link order
    order: MutableMapping[str, int] = field(default_factory=dict)       # object -> position in link order
    retired_statics: dict[str, dict[str, Retired]] = field(default_factory=dict)  # object -> name in `data` -> static local
    knew: set[tuple[str, str]] = field(default_factory=set)             # (object, printed type) that a generation's map had
    brought: set[str] = field(default_factory=set)                      # objects of which a generation brought code or data
    past_types: dict[str, dict[str, str | None]] = field(default_factory=dict)  # printed type that left -> digest -> layout
    index: Index | None = None                                          # of the image

    def position(self, obj: str) -> int:
        """Of an object in link order; one that is not part of the image yet comes last."""
        found = self.order.get(obj)
        return len(self.order) if found is None else found

    def redefined(self, news: Mapping[str, ObjectMap | None]) -> dict[str, Collection[Definition]]:
        """Who defines each name that an object of `news` defines or used to define, once `news` are in (None: an object
        that is no longer part of the image). Names that nobody defines any more have an empty collection."""
        names: dict[str, list[Definition]] = {}
        for obj in news:
            for entry in difference.entries(self.maps[obj]) if obj in self.maps else []:
                names.setdefault(entry.name, [])
        for obj, new in news.items():
            for entry in difference.entries(new) if new else []:
                names.setdefault(entry.name, []).append(Definition(obj, entry))
        objects = frozenset(news)
        return {name: self._with(found, self.definitions.get(name, ()), objects) for name, found in names.items()}

    def _with(self, found: list[Definition], known: Collection[Definition], news: frozenset[str]) -> Collection[Definition]:
        if isinstance(known, Definers):
            return Redefined(known, news, [(self.position(d.object), d) for d in found])
        return tuple(sorted([*found, *(d for d in known if d.object not in news)], key=lambda d: self.position(d.object)))

    def may_know_type(self, name: str) -> bool:
        """Whether the process ever had code or data of an object file that ever had a type of this printed name. If not, no
        object of such a type can exist. (A file counts as a whole: a renamed type leaves code as it is.)"""
        knew = {obj for obj, known in self.knew if known == name}
        return not knew.isdisjoint(self.brought) \
            or any(m.object in knew or name in m.types.values() for m in self._linked_maps("p", name, knew) if self._is_linked(m))

    def _linked_maps(self, kind: str, name: str, also: Collection[str] = ()) -> Iterable[ObjectMap]:
        """Maps of the image as it was linked: at least those of objects that have something (Index.users), and `also`."""
        if self.index is None:
            return self.facts.maps
        index = self.index
        found = itertools.chain(map(index.map_of, index.users(kind, name)), map(index.map, also))
        return (m for m in found if m is not None)

    def _is_linked(self, m: ObjectMap) -> bool:
        """Whether something of this object of the image lives: the linker may have left all of it out (--gc-sections)."""
        names = [e.name for e in difference.entries(m)]
        return not names or any(n in self.functions or n in self.data for n in names)

    def importers(self, names: Collection[str]) -> list[str]:
        """Objects that may refer to one of `names`: all that do are among them."""
        if self.index is None:
            return list(self.maps)
        found = {number for name in names for number in self.index.users("i", name)}
        return [*dict.fromkeys((*map(self.index.object, sorted(found)), *later(self.maps)))]

    def virtuals_of(self, name: str) -> str | None:
        """The virtual functions of a class as the first object has them that knows it (ObjectMap.virtuals)."""
        linked = map(self.index.object, self.index.users("v", name)) if self.index is not None else iter(())
        for obj in heapq.merge(linked, sorted(later(self.maps), key=self.position), key=self.position):
            if obj in self.maps and name in self.maps[obj].virtuals:
                return self.maps[obj].virtuals[name]
        return None

    def unchanged(self, obj: str, digest: bytes) -> bool:
        """Whether it is known of an object that it is as it lives: `digest` is that of its map as stored (index.digest)."""
        return self.index is not None and isinstance(self.maps, Layered) and not self.maps.changed(obj) \
            and self.index.map_digest(obj) == digest

    def symbols_between(self, low: int, high: int) -> list[int]:
        """Addresses of symbols of the image, low <= address < high."""
        if self.index is not None:
            return self.index.symbols_between(low, high)
        return [s.address for s in self.facts.symbols if low <= s.address < high and s.type != "TLS"]

    def linked_digests(self, name: str) -> set[str]:
        """Digests of the data of that name that the image was linked with."""
        if self.index is not None:
            return {d.entry.digest for d in self.index.definitions(name) or () if isinstance(d.entry, DataEntry)}
        return {d.digest for m in self.facts.maps for d in m.data if d.name == name}

    def foreign_vtables(self) -> list[str]:
        """Tables of virtual functions in parts that are not instrumented."""
        known = self.symbols if self.index is None else self.index.vtables()
        return [name for name in known if difference.is_users_vtable(name)]

    def tls_reserve(self) -> ImageSymbol | None:
        """The room that the runtime keeps in every thread's block."""
        if self.index is not None:
            return self.index.reserve
        return next((s for s in self.facts.symbols if s.name == TLS_RESERVE and s.type == "TLS"), None)

    def rooms(self) -> list[tuple[int, int]]:
        """Free ranges of the arena: what was never used, then from its start on what is free again. So an address is used
        again as late as possible: a revert to the code that was there before needs it back."""
        needed = {f.generation for f in later(self.functions).values()}
        known = max((p.end for p in self.payloads), default=self.arena[0])
        withdrawn = [(known, self.arena_used_end)] if self.arena_used_end > known else []     # some process has it still
        taken = sorted([*((p.start, p.end) for p in self.payloads if not p.transient or p.generation in needed), *withdrawn])
        end = self.arena[0] + self.arena[1]
        last = self.payloads[-1].end if self.payloads else self.arena[0]
        found, at = [], self.arena[0]
        for start, after in [*taken, (end, end)]:
            if start > at:
                found.append((at, start))
            at = max(at, after)
        parts = [part for low, high in found for part in ((low, min(high, last)), (max(low, last), high)) if part[0] < part[1]]
        return sorted(parts, key=lambda part: (part[0] < last, part[0]))

    def copy(self) -> LiveState:
        """Independent of the original; entries are immutable and shared."""
        return dataclasses.replace(
            self, maps=_copied(self.maps), functions=_copied(self.functions), data=_copied(self.data),
            types=_copied(self.types), definitions=_copied(self.definitions),
            order=_copied(self.order), payloads=list(self.payloads), knew=set(self.knew), brought=set(self.brought),
            past_types={name: dict(layouts) for name, layouts in self.past_types.items()},
            retired_statics={obj: dict(found) for obj, found in self.retired_statics.items()})


def _copied(mapping: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return mapping.copy() if isinstance(mapping, Layered) else dict(mapping)


# ---- the image as built ------------------------------------------------------------------------------------------


def from_image(image: ImageFacts) -> LiveState:
    """The state at generation 0. Raises Damaged if the symbols contradict the maps."""
    live = LiveState(image.build_id, image.kind, image.path, image, image.arena, image.arena[0])
    _add_maps(live, image.maps)
    symbols = _Symbols(image)
    for name, definitions in live.definitions.items():
        prevails = difference.prevailing(definitions)
        if prevails is not None:
            _add_definition(live, symbols, name, prevails)
    for symbol in symbols.bindable():
        if symbol.name in live.functions or symbol.name in live.data:
            continue
        if symbol.type == "IFUNC":
            live.ifuncs.add(symbol.name)
        else:
            (live.tls_symbols if symbol.type == "TLS" else live.symbols)[symbol.name] = symbol.address
    return live


def _add_maps(live: LiveState, maps: Iterable[ObjectMap]) -> None:
    definitions: dict[str, list[Definition]] = {}
    types: dict[str, set[str]] = {}
    for m in maps:
        if m.object in live.maps:
            raise Damaged(live.path, f"object map of {m.object}", "the image holds two maps of this object")
        live.maps[m.object] = m
        live.order[m.object] = len(live.order)
        for entry in difference.entries(m):
            definitions.setdefault(entry.name, []).append(Definition(m.object, entry))
        for signature in m.types:
            types.setdefault(signature, set()).add(m.object)
    live.types = dict(types)
    live.definitions = {name: tuple(found) for name, found in definitions.items()}


def _add_definition(live: LiveState, symbols: _Symbols, name: str, definition: Definition) -> None:
    """Names without a symbol were left out by the linker (--gc-sections): they do not live in the process."""
    obj, entry = definition
    symbol = symbols.find(name)
    if symbol is None:
        return
    if isinstance(entry, DataEntry):
        live.data[name] = new_data(entry, obj, symbol.address, 0)
        return
    slot = symbols.find(name + SLOT_SUFFIX)
    body = None
    if slot is not None:
        body = symbols.slots.get(slot.address)
        if body is None:
            raise Damaged(live.path, slot.name, f"the slot at {slot.address:#x} holds no address of code")
    lead = symbols.lead(symbol, name, body, entry.size) if body is not None else 0
    head = None if body is None or body != symbol.address + lead or not lead else body - arch.NATIVE.HEAD_SIZE
    live.functions[name] = LiveFunction(name, obj, symbol.address, slot.address if slot else None, body, entry.size - lead,
                                        entry.digest, entry.signature, 0, lead, head)


_LIBRARY_HANDLE = "__dso_handle"     # of crtbeginS.o
_MADE_UP = (SLOT_SUFFIX, BODY_SUFFIX, CALL_SUFFIX)


class _Symbols:
    """The image's symbols by name, where a name means one thing."""
    _LINKER_MADE_LOCAL = ("HIDDEN", "INTERNAL")   # the linker turns hidden symbols into local ones

    def __init__(self, image: ImageFacts) -> None:
        self.slots = image.slots
        self._path = image.path
        self._public: dict[str, ImageSymbol] = {}
        self._hidden: dict[str, list[ImageSymbol]] = {}
        self._local: dict[str, list[ImageSymbol]] = {}
        bodies = set(image.slots.values())
        unique = {s.address for s in image.symbols if LOCAL_SEPARATOR in s.name and s.section != "*ABS*" and s.type != "TLS"}
        for symbol in image.symbols:
            if symbol.section == "*ABS*":
                continue
            if symbol.binding != "LOCAL":
                self._public[symbol.name] = symbol
            elif symbol.visibility in self._LINKER_MADE_LOCAL:
                self._hidden.setdefault(symbol.name, []).append(symbol)
            elif symbol.address not in bodies and (symbol.address not in unique or LOCAL_SEPARATOR in symbol.name):
                self._local.setdefault(symbol.name, []).append(symbol)

    def find(self, name: str) -> ImageSymbol | None:
        """What an instrumented object's public or unique name became. It is a plain local symbol where a version script
        made it local, and in every program that mold links; what is file-local in the source can bear the same name, but is
        known by its slot, or by its unique name. Raises Refused where parts that are not instrumented have one too."""
        symbol = self._public.get(name)
        if symbol is not None:
            return symbol
        for candidates in (self._hidden.get(name, []), self._local.get(name, [])):
            if len(candidates) > 1:
                candidates = self._behind_its_code(name, candidates)
            if len(candidates) == 1:
                return candidates[0]
        return None

    def lead(self, function: ImageSymbol, name: str, body: int, size: int) -> int:
        """Bytes of a head between the start of a function's code, which is `function` or another name's, and `body`."""
        code = function if function.address <= body < function.address + size else self.find(name + BODY_SUFFIX)
        return body - code.address if code is not None and 0 <= body - code.address <= arch.NATIVE.HEAD_END else 0

    def _behind_its_code(self, name: str, candidates: list[ImageSymbol]) -> list[ImageSymbol]:
        """Those that can be the stub of `name`, which lies right behind the code; none if the image has no such code."""
        if name.endswith(_MADE_UP):
            return []
        if candidates[0].type != "FUNC":
            raise Refused([Refusal("ambiguous-symbol", "", name, f"{self._path} has {len(candidates)} variables of this name "
                                   "that no other object sees, and it cannot be told which one is of an instrumented object",
                                   "rename it and restart the program, or link it with another linker than mold")])
        slot = self.find(name + SLOT_SUFFIX)
        body = self.slots.get(slot.address, 0) if slot is not None else 0
        with_head = [c for c in candidates if 0 < body - c.address <= arch.NATIVE.HEAD_END]
        codes = [s for found in (self._hidden, self._local) for s in found.get(name + BODY_SUFFIX, ())]
        return with_head or [c for c in candidates for code in codes if 0 < c.address - code.address - code.size <= _BEHIND]

    def bindable(self) -> Iterable[ImageSymbol]:
        """Symbols that an undefined symbol of a new object could mean."""
        yield from (s for s in self._public.values() if not s.name.endswith(_MADE_UP))
        yield from (found[0] for name, found in self._hidden.items() if len(found) == 1
                    and name not in self._public and not name.endswith(_MADE_UP))
        # ld.bfd leaves no trace of these having been hidden and not file-local: the runtime's functions, and in a library what
        # its C++ objects are registered with, to be destroyed when it is unloaded.
        yield from (found[0] for name, found in self._local.items() if len(found) == 1 and name not in self._public
                    and name not in self._hidden and (found[0].type == "FUNC" and name.startswith(RUNTIME_PREFIX)
                                                      or name == _LIBRARY_HANDLE))


def new_data(entry: DataEntry, obj: str, address: int, generation: int) -> LiveData:
    return LiveData(entry.name, obj, address, entry.size, entry.extent, entry.digest, entry.kind, entry.type, generation,
                    entry.align)


# ---- generations -------------------------------------------------------------------------------------------------


def apply_generation(live: LiveState, manifest_image: Mapping[str, Any], maps: Sequence[ObjectMap]) -> LiveState:
    """`live` with one generation laid over it; `live` itself is not touched.

    `manifest_image` is one entry of `images` of a bundle's manifest and `maps` the object maps of that image. Raises
    NotForImage if the generation is for another image, or does not follow the one that is live.
    """
    return apply_generations(live, [(manifest_image, maps)])


def apply_generations(live: LiveState, steps: Iterable[tuple[Mapping[str, Any], Sequence[ObjectMap]]]) -> LiveState:
    """Several at once, oldest first, for the price of one copy."""
    state = live.copy()
    for manifest_image, maps in steps:
        overlay(state, manifest_image, maps)
    return state


def overlay(state: LiveState, image: Mapping[str, Any], maps: Sequence[ObjectMap]) -> None:
    """`apply_generation` in place. A state for which it raised is of no use any more."""
    _check_follows(state, image)
    generation = int(image["generation"])
    news = {m.object: m for m in maps}
    _replace_data(state, image["data"], news, generation)
    redefined = state.redefined(news)
    _replace_maps(state, news, redefined)
    _replace_functions(state, image, generation)
    for name, definitions in redefined.items():
        found = state.data.get(name)
        if found is not None and found.retired is None and not definitions:
            state.data[name] = dataclasses.replace(found, retired=generation)
    state.generation, state.id = generation, str(image["id"])
    start, end = image["arena"]
    state.payloads.append(Placed(generation, int(start), int(end), bool(image.get("transient", False))))
    state.arena_used_end = max(state.arena_used_end, int(end))


def _check_follows(state: LiveState, image: Mapping[str, Any]) -> None:
    if image["build_id"] != state.build_id:
        raise NotForImage(f"{state.path}: the bundle is for build-id {image['build_id']}, the image has {state.build_id}; "
                          "make a new one from the image that runs")
    if image["generation"] != state.generation + 1 or image["parent"] != state.id:
        raise NotForImage(f"{state.path}: generation {image['generation']} follows {image['parent'][:12]}, but generation "
                          f"{state.generation}, {state.id[:12]}, is live; apply the bundles in their order")


def _replace_data(state: LiveState, data: Mapping[str, Any], news: Mapping[str, ObjectMap], generation: int) -> None:
    """Static locals swap names, so all old ones are looked up before a new one is written."""
    entries = {d.name: (m.object, d) for m in news.values() for d in m.data}
    bound = {str(b["name"]): (state.data.get(str(b["was"])), b) for b in data["bound"]}
    taken = {str(b["was"]) for b in data["bound"] if b["name"] in entries}
    for obj in [o for o in news if o in state.maps]:
        _retire_statics(state, obj, taken, generation)
    for name, (was, record) in bound.items():
        if name in entries:
            state.data[name] = _continued(was, entries[name], record, generation)
    for record in data["added"]:
        obj, entry = _entry_of(state, record, entries)
        state.data[entry.name] = dataclasses.replace(new_data(entry, obj, int(record["address"]), generation),
                                                     extent=int(record["extent"]))
    for record in data["updated"]:
        obj, entry = _entry_of(state, record, entries)
        state.data[entry.name] = dataclasses.replace(state.data[entry.name], digest=entry.digest, object=obj, kind=entry.kind,
                                                     size=entry.size)


def _retire_statics(state: LiveState, obj: str, taken: set[str], generation: int) -> None:
    """Free the numbers of an object's static locals. Those that nobody took over may come back with their function."""
    old = state.maps[obj]
    living = {d.name: state.data.pop(d.name) for d in old.data if d.static_local and d.name in state.data}
    retired = state.retired_statics.setdefault(obj, {})
    for name in retired.keys() & taken:
        del retired[name], state.data[name]
    for name, gone in difference.retire(old, living.keys() - taken, str(generation)).items():
        retired[gone.entry.name] = gone
        state.data[gone.entry.name] = dataclasses.replace(living[name], name=gone.entry.name, retired=generation)


def _continued(was: LiveData | None, new: tuple[str, DataEntry], record: Mapping[str, Any], generation: int) -> LiveData:
    """A variable that goes on under a (perhaps new) name. Without `was` it came from an uninstrumented part."""
    obj, entry = new
    if was is None:
        return dataclasses.replace(new_data(entry, obj, int(record["address"]), generation), extent=int(record["extent"]))
    return dataclasses.replace(was, name=entry.name, object=obj, type=entry.type or was.type, retired=None)


def _entry_of(state: LiveState, record: Mapping[str, Any],
              entries: Mapping[str, tuple[str, DataEntry]]) -> tuple[str, DataEntry]:
    found = entries.get(str(record["name"]))
    if found is None:
        raise Damaged(state.path, f"generation {state.generation + 1}", f"{record['name']} is in no object map it brings")
    return found


def _replace_maps(state: LiveState, news: Mapping[str, ObjectMap], redefined: Mapping[str, Collection[Definition]]) -> None:
    for obj, new in news.items():
        old = state.maps.get(obj)
        if old is None or new.types != old.types:
            state.knew.update((obj, name) for name in new.types.values())
        _replace_types(state, old, new)
        state.maps[obj] = new
        state.order.setdefault(obj, len(state.order))
    for name, definitions in redefined.items():
        if definitions:
            state.definitions[name] = definitions
        else:
            state.definitions.pop(name, None)


def _replace_types(state: LiveState, old: ObjectMap | None, new: ObjectMap) -> None:
    for signature, name in old.types.items() if old else ():
        if old is not None and signature not in new.types:
            users = state.types[signature] - {new.object}
            if users:
                state.types[signature] = users
            else:
                state.past_types.setdefault(name, {})[signature] = old.layouts.get(signature)
                del state.types[signature]
    for signature in new.types:
        if old is None or signature not in old.types:
            state.types[signature] = state.types.get(signature, frozenset()) | {new.object}


def _replace_functions(state: LiveState, image: Mapping[str, Any], generation: int) -> None:
    """Removed functions stay: old callers and stored pointers go on using them, and their names may come back."""
    state.brought.update(str(r["object"]) for r in (*image["changed"], *image["added"], *image["data"]["added"]))
    for record in image["changed"]:
        entry = _function_entry(state, record)
        old = state.functions.get(entry.name)
        if old is None:
            raise Damaged(state.path, f"generation {generation}", f"it changes {entry.name}, which does not live in the image")
        state.functions[entry.name] = dataclasses.replace(
            old, object=str(record["object"]), body=int(record["body"]), size=int(record["size"]), digest=entry.digest,
            signature=entry.signature or old.signature, generation=generation, lead=max(entry.size - int(record["size"]), 0))
    for record in image["added"]:
        entry = _function_entry(state, record)
        state.functions[entry.name] = LiveFunction(
            entry.name, str(record["object"]), int(record["entry"]), int(record["slot"]), int(record["body"]),
            int(record["size"]), entry.digest, entry.signature, generation, max(entry.size - int(record["size"]), 0))


def _function_entry(state: LiveState, record: Mapping[str, Any]) -> FunctionEntry:
    name, obj = str(record["name"]), str(record["object"])
    for definition in state.definitions.get(name, ()):
        if definition.object == obj and isinstance(definition.entry, FunctionEntry):
            return definition.entry
    raise Damaged(state.path, f"generation {state.generation + 1}", f"no object map says that {obj} defines {name}")
