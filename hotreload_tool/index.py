"""The index of a linked image: what a patch needs to know of it, found by name without reading all of it.

It is filed beside the baseline when the image is linked, and holds for every name what `live.from_image` would find in the
object maps and the symbol table. The maps themselves stay in the image: the index says where each lies. Whatever does not
fit together (another image, another version, damage) raises BadIndex, and then the image is read as if there were no
index. Format: docs/formats.md, "Index of a baseline".
"""
from __future__ import annotations

import functools
import hashlib
import json
import os
import struct
import weakref
import zlib
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from . import arch, difference, mapped, objectmap
from .definers import Definers, Placed
from .difference import Definition
from .fragments import Fragment, Functions
from .layered import Layered, Lookup
from .live import ImageFacts, ImageSymbol, LiveData, LiveFunction, LiveState, TlsSegment, new_data
from .names import MAP_SECTION, TLS_RESERVE
from .objectmap import MapError, ObjectMap

VERSION = 4                     # bump when what is kept changes
_MAGIC = b"HRINDEX\1"
_HEAD = struct.Struct("<8sI16s")            # magic, bytes of the header that follows, its digest
_PAGE = 4096                    # bytes that one checksum covers
_ROW = struct.Struct("<16sIIIIQQQII")      # key, flags, object, position, definitions, addresses (entry, slot, body), first, lead
_BUCKET = 16                    # rows to a bucket, about
_OBJECT = struct.Struct("<QIII16s")         # offset of its map in the section, stored bytes; place and bytes of its name; digest
_FUNCTION, _DATA, _SYMBOL, _TLS, _SLOT, _BODY, _HAS_HEAD = 1, 2, 4, 8, 16, 32, 64
_STRONG, _IS_DATA = 1 << 31, 1 << 30        # in the list of definitions, beside the position
_POSITION = _IS_DATA - 1
_FEW = 16                       # who defines a name is read at once, if they are no more
_CHUNK = 256                    # of a list, that are read together
_KEPT_PAGES = 4096              # in memory


class _Definition:
    """As difference.Definition, of an image with an index: who defines a name is known before the object's map is read."""
    __slots__ = ("_index", "_number", "_position", "strong")

    def __init__(self, index: Index, number: int, position: int) -> None:
        self._index, self._number, self._position = index, number, position & ~_STRONG
        self.strong = bool(position & _STRONG)

    @property
    def object(self) -> str:
        return self._index.object(self._number)

    @property
    def entry(self) -> Any:
        return self._index.entry(self._number, self._position)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.object, self.entry))

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Definition | Definition) and (self.object, self.entry) == (other.object, other.entry)

    def __hash__(self) -> int:
        return hash(self.object)


class _Definers(Definers):
    """So many that they are not read at once."""

    def __init__(self, index: Index, row: _Row) -> None:
        self._index, self._row = index, row
        self.weak = not row.position & _STRONG          # of the one that prevails

    def placed(self) -> Iterator[Placed]:
        numbers = self._index.listed(self._row.first, 2 * self._row.definers)
        for number, position in zip(numbers, numbers):
            yield number, cast(Definition, _Definition(self._index, number, position))


class BadIndex(ValueError):
    """The index is not there, or not of this image, or damaged."""


class _Row(NamedTuple):
    key: bytes
    flags: int
    object: int
    position: int
    definers: int
    entry: int
    slot: int
    body: int
    first: int
    lead: int


def _key(kind: str, name: str) -> bytes:
    return hashlib.blake2b(_encoded(kind + name), digest_size=16).digest()


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def digest(stored: bytes) -> bytes:
    """Of an object map as it is stored, header and all, without padding."""
    return hashlib.blake2b(stored, digest_size=16).digest()


# ---- making it -------------------------------------------------------------------------------------------------


def make(image: Path, facts: ImageFacts, live: LiveState) -> bytes:
    """The index of the image at `image`. `live`: `from_image(facts)`. Raises OSError; BadIndex if the image is one that
    the index has no room for."""
    try:
        return _made(image, facts, live)
    except (struct.error, OverflowError) as e:
        raise BadIndex(f"{image}: {e}") from e


def _made(image: Path, facts: ImageFacts, live: LiveState) -> bytes:
    section, places = _places(image)
    lists: array[int] = array("I")
    fragments = Functions(mapped.read(image)).fragments()
    names = [m.object for m in facts.maps]
    rows = [*_name_rows(live, facts, lists), *_group_rows(facts, lists), *_fragment_rows(fragments, lists), *_object_rows(names)]
    rows.sort()
    if any(a[:16] == b[:16] for a, b in zip(rows, rows[1:])):
        raise BadIndex(f"{image}: two names of one key")
    bits = max(len(rows) // _BUCKET, 1).bit_length()
    starts = array("I", [0]) * ((1 << bits) + 1)
    for row in rows:
        starts[(int.from_bytes(row[:4], "big") >> (32 - bits)) + 1] += 1
    for i in range(1 << bits):
        starts[i + 1] += starts[i]
    addresses = array("Q", sorted({s.address for s in facts.symbols if s.type != "TLS"}))
    parts = {"starts": starts.tobytes(), "rows": b"".join(rows), "lists": lists.tobytes(), "addresses": addresses.tobytes(),
             "named": _named_ranges(live).tobytes(), **_objects(names, places),
             "fragments": array("Q", [n for f in fragments for n in (f.start, f.size)]).tobytes(),
             "exported": json.dumps(facts.exported).encode(),
             "vtables": json.dumps([n for n in live.symbols if difference.is_users_vtable(n)]).encode()}
    header = {"version": VERSION, "build_id": facts.build_id, "image": image.stat().st_size, "map": section, "bits": bits,
              "facts": {"kind": facts.kind, "machine": facts.machine, "arena": facts.arena, "tls": facts.tls,
                        "needed": facts.needed, "runpath": facts.runpath},
              "ifuncs": sorted(live.ifuncs),
              "reserve": next((s for s in facts.symbols if s.name == TLS_RESERVE and s.type == "TLS"), None)}
    return _packed(header, parts)


def _packed(header: dict[str, Any], parts: Mapping[str, bytes]) -> bytes:
    body = bytearray()
    where = {}
    for name, data in parts.items():
        where[name] = (len(body), len(data))
        body += data + bytes(-len(data) % 8)
    sums = struct.pack(f"<{-(-len(body) // _PAGE)}I", *(zlib.crc32(body[at:at + _PAGE]) for at in range(0, len(body), _PAGE)))
    head = json.dumps({**header, "parts": where, "sums": digest(sums).hex()}, separators=(",", ":")).encode()
    return b"".join((_HEAD.pack(_MAGIC, len(head), digest(head)), head, sums, body))


def _places(image: Path) -> tuple[list[int], list[tuple[int, int, bytes]]]:
    """Where the section of maps lies in the file, and each map in the section, in link order."""
    section = next(s for s in mapped.read(image).sections if s.name == MAP_SECTION)
    assert isinstance(section, mapped.MappedSection)
    data, found = section.data, []
    for at, size in stored_maps(data):
        found.append((at, size, digest(data[at:at + size])))
    return [section.offset, len(data)], found


def stored_maps(data: bytes) -> Iterator[tuple[int, int]]:
    """(offset, stored bytes) of the maps that `objectmap.unpack_all` would unpack."""
    at = 0
    while at + objectmap._HEADER.size <= len(data):
        magic, stored, _ = objectmap._HEADER.unpack_from(data, at)
        if magic != objectmap._MAGIC:
            at += objectmap._ALIGN
            continue
        size = objectmap._HEADER.size + stored
        yield at, size
        at += size
        at += -at % objectmap._ALIGN


def _name_rows(live: LiveState, facts: ImageFacts, lists: array[int]) -> Iterator[bytes]:
    positions: dict[str, list[tuple[int, int]]] = {}
    for number, m in enumerate(facts.maps):
        for position, entry in enumerate(difference.entries(m)):
            strong = _STRONG if entry.comdat is None and entry.binding != "weak" else 0
            what = position - len(m.functions) | _IS_DATA if position >= len(m.functions) else position
            positions.setdefault(entry.name, []).append((number, what | strong))
    for name, definers in positions.items():
        yield _name_row(live, name, definers, lists)
    for name, address in live.symbols.items():
        if name not in positions:
            yield _ROW.pack(_key("n", name), _SYMBOL, 0, 0, 0, address, 0, 0, 0, 0)
    for name, address in live.tls_symbols.items():
        if name not in positions:
            yield _ROW.pack(_key("n", name), _TLS, 0, 0, 0, address, 0, 0, 0, 0)


def _name_row(live: LiveState, name: str, definers: Sequence[tuple[int, int]], lists: array[int]) -> bytes:
    prevails = next((d for d in definers if d[1] & _STRONG), definers[0])
    flags, entry, slot, body, lead = 0, 0, 0, 0, 0
    function, data = live.functions.get(name), live.data.get(name)
    if function is not None:
        flags, entry, lead = _FUNCTION | (_HAS_HEAD if function.head is not None else 0), function.entry, function.lead
        if function.slot is not None:
            flags, slot = flags | _SLOT, function.slot
        if function.body is not None:
            flags, body = flags | _BODY, function.body
    elif data is not None:
        flags, entry = _DATA, data.address
    elif name in live.symbols:
        flags, entry = _SYMBOL, live.symbols[name]
    elif name in live.tls_symbols:
        flags, entry = _TLS, live.tls_symbols[name]
    first = len(lists)
    if len(definers) > 1:
        for pair in definers:
            lists.extend(pair)
    return _ROW.pack(_key("n", name), flags, prevails[0], prevails[1], len(definers), entry, slot, body, first, lead)


def _group_rows(facts: ImageFacts, lists: array[int]) -> Iterator[bytes]:
    """Which objects have a type, a type of a printed name, a class with virtual functions, an import."""
    groups: dict[tuple[str, str], list[int]] = {}
    for number, m in enumerate(facts.maps):
        for kind, names in (("t", m.types), ("p", dict.fromkeys(m.types.values())), ("v", m.virtuals), ("i", m.imports)):
            for name in names:
                groups.setdefault((kind, name), []).append(number)
    for (kind, name), users in groups.items():
        first = len(lists)
        lists.extend(users)
        yield _ROW.pack(_key(kind, name), 0, 0, 0, len(users), 0, 0, 0, first, 0)


def _fragment_rows(fragments: Sequence[Fragment], lists: array[int]) -> Iterator[bytes]:
    """Which of the fragments were made from a function."""
    bases: dict[str, list[int]] = {}
    for number, fragment in enumerate(fragments):
        bases.setdefault(fragment.base, []).append(number)
    for base, numbers in bases.items():
        first = len(lists)
        lists.extend(numbers)
        yield _ROW.pack(_key("f", base), 0, 0, 0, len(numbers), 0, 0, 0, first, 0)


def _object_rows(names: Sequence[str]) -> Iterator[bytes]:
    for number, name in enumerate(names):
        yield _ROW.pack(_key("o", name), 0, number, 0, 0, 0, 0, 0, 0, 0)


def _objects(names: Sequence[str], places: Sequence[tuple[int, int, bytes]]) -> dict[str, bytes]:
    """The objects in link order, and what they are called."""
    heap, records = bytearray(), bytearray()
    for name, (at, size, known) in zip(names, places, strict=True):
        encoded = _encoded(name)
        if b"\0" in encoded:
            raise BadIndex(f"{name!r} holds a zero byte")
        records += _OBJECT.pack(at, size, len(heap), len(encoded), known)
        heap += encoded + b"\0"
    return {"objects": bytes(records), "names": bytes(heap)}


def _named_ranges(live: LiveState) -> array[int]:
    """Where named data lies, by address: start, end, and the furthest end so far, three numbers each."""
    found, furthest = array("Q"), 0
    for start, end in sorted((d.address, d.address + max(d.size, d.extent)) for d in live.data.values()):
        furthest = max(furthest, end)
        found.extend((start, end, furthest))
    return found


# ---- reading it ------------------------------------------------------------------------------------------------


class _File:
    """A file that is read in pieces: what is mapped instead counts as memory in use, many pages around each that is read."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self.path, self.size = path, os.fstat(self._descriptor).st_size

    def read(self, at: int, size: int) -> bytes:
        """Raises BadIndex for what cannot be read, or is not there."""
        try:
            found = os.pread(self._descriptor, size, at)
        except OSError as e:
            raise BadIndex(f"{self.path}: {e}") from e
        if len(found) != size:
            raise BadIndex(f"{self.path}: it is cut short")
        return found


class Index:
    """An index that is open. Every method may raise BadIndex for a page that is damaged."""

    def __init__(self, path: Path, image: Path, build_id: str) -> None:
        """Raises BadIndex, if it is not the index of `image`."""
        self.path, self.image = path, image
        try:
            self._file, self._image = _File(path), _File(image)
            magic, size, head_digest = _HEAD.unpack(self._file.read(0, _HEAD.size))
            head = self._file.read(_HEAD.size, size) if magic == _MAGIC else b""
            if digest(head) != head_digest:
                raise BadIndex("its header is damaged, or of another version")
            self.header = json.loads(head)
            self._check_header(build_id, _HEAD.size + size)
        except (OSError, ValueError, KeyError, TypeError, struct.error) as e:
            raise BadIndex(f"{path}: {e}") from e
        self._pages: dict[int, bytes] = {}
        self._rows: dict[tuple[str, str], _Row | None] = {}
        self._known_maps: dict[int, ObjectMap] = {}
        self._definitions: dict[str, Collection[Definition]] = {}
        self._objects: dict[int, str] = {}
        self.order: Mapping[str, int] = _Order(self)

    def _check_header(self, build_id: str, behind: int) -> None:
        if (self.header["version"], self.header["build_id"], self.header["image"]) != (VERSION, build_id, self._image.size):
            raise BadIndex("it is of another version, or of another image")
        self.parts: dict[str, tuple[int, int]] = self.header["parts"]
        size = max(at + -(-length // 8) * 8 for at, length in self.parts.values())
        self._body = behind + -(-size // _PAGE) * 4
        if self._body + size != self._file.size:
            raise BadIndex("it is cut short")
        sums = self._file.read(behind, self._body - behind)
        if digest(sums).hex() != self.header["sums"]:
            raise BadIndex("its checksums are damaged")
        self._sums = array("I", sums)
        self._end = size

    def _read(self, part: str, at: int, size: int) -> bytes:
        """Bytes of a part; what is read is checked, and only that."""
        start, length = self.parts[part]
        if at < 0 or at + size > length:
            raise BadIndex(f"{self.path}: {part} has {length} bytes")
        first, behind = divmod(start + at, _PAGE)
        if behind + size <= _PAGE:
            return self._page(first)[behind:behind + size] if size else b""
        pages = b"".join(map(self._page, range(first, (start + at + size - 1) // _PAGE + 1)))
        return pages[behind:behind + size]

    def _page(self, number: int) -> bytes:
        found = self._pages.get(number)
        if found is None:
            low = number * _PAGE
            found = self._file.read(self._body + low, min(_PAGE, self._end - low))
            if zlib.crc32(found) != self._sums[number]:
                raise BadIndex(f"{self.path}: page {number} is damaged")
            if len(self._pages) >= _KEPT_PAGES:
                self._pages.clear()
            self._pages[number] = found
        return found

    def _whole(self, part: str) -> bytes:
        return self._read(part, 0, self.parts[part][1])

    def _numbers(self, part: str, kind: str, first: int, count: int) -> array[int]:
        width = array(kind).itemsize
        return array(kind, self._read(part, first * width, count * width))

    def listed(self, first: int, count: int) -> Iterator[int]:
        """Of `lists`."""
        for at in range(0, count, _CHUNK):
            yield from self._numbers("lists", "I", first + at, min(_CHUNK, count - at))

    def _row(self, kind: str, name: str) -> _Row | None:
        if (kind, name) not in self._rows:
            self._rows[kind, name] = self._look_up(kind, name)
        return self._rows[kind, name]

    def _look_up(self, kind: str, name: str) -> _Row | None:
        key = _key(kind, name)
        bucket = int.from_bytes(key[:4], "big") >> (32 - self.header["bits"])
        first, last = self._numbers("starts", "I", bucket, 2)
        data = self._read("rows", first * _ROW.size, (last - first) * _ROW.size)
        at = data.find(key)
        while at >= 0 and at % _ROW.size:
            at = data.find(key, at + 1)
        return None if at < 0 else _Row(*_ROW.unpack_from(data, at))

    # ---- objects --------------------------------------------------------------------------------

    def number(self, obj: str) -> int | None:
        """Of an object in link order."""
        row = self._row("o", obj)
        return None if row is None else row.object

    def object(self, number: int) -> str:
        found = self._objects.get(number)
        if found is None:
            _, _, at, size, _ = self._place(number)
            found = self._objects[number] = self._read("names", at, size).decode("utf-8", "surrogateescape")
        return found

    def objects(self) -> list[str]:
        """All of them, in link order."""
        return self._whole("names").decode("utf-8", "surrogateescape").split("\0")[:-1]

    def map_digest(self, obj: str) -> bytes | None:
        """Of an object's map as it was linked: `digest`."""
        number = self.number(obj)
        return None if number is None else self._place(number)[4]

    def _place(self, number: int) -> tuple[int, int, int, int, bytes]:
        return _OBJECT.unpack(self._read("objects", number * _OBJECT.size, _OBJECT.size))

    def map(self, obj: str) -> ObjectMap | None:
        number = self.number(obj)
        return None if number is None else self.map_of(number)

    def map_of(self, number: int) -> ObjectMap:
        found = self._known_maps.get(number)
        if found is None:
            found = self._known_maps[number] = self._unpack(number)
        return found

    def _unpack(self, number: int) -> ObjectMap:
        at, size, _, _, known = self._place(number)
        start, length = self.header["map"]
        if at + size > length or digest(stored := self._image.read(start + at, size)) != known:
            raise BadIndex(f"{self._image.path}: the object map of {self.object(number)} is not what was linked")
        try:
            return next(iter(objectmap.unpack_all(stored)))
        except (MapError, StopIteration) as e:
            raise BadIndex(f"{self._image.path}: {e}") from e

    def users(self, kind: str, name: str) -> Iterator[int]:
        """Numbers of the objects, in link order, that have a type ("t", by digest), a type of that printed name ("p"), a class
        with virtual functions ("v"), an import ("i")."""
        row = self._row(kind, name)
        return iter(()) if row is None else self.listed(row.first, row.definers)

    # ---- names ----------------------------------------------------------------------------------

    def entry(self, number: int, position: int) -> Any:
        """What the object of that number has at a position of the list of definitions."""
        m = self.map_of(number)
        return (m.data if position & _IS_DATA else m.functions)[position & _POSITION]

    def function(self, name: str) -> LiveFunction | None:
        row = self._row("n", name)
        if row is None or not row.flags & _FUNCTION:
            return None
        entry = self.entry(row.object, row.position)
        return LiveFunction(name, self.object(row.object), row.entry, row.slot if row.flags & _SLOT else None,
                            row.body if row.flags & _BODY else None, entry.size - row.lead, entry.digest, entry.signature, 0,
                            row.lead, row.body - arch.NATIVE.HEAD_SIZE if row.flags & _HAS_HEAD else None)

    def data(self, name: str) -> LiveData | None:
        row = self._row("n", name)
        if row is None or not row.flags & _DATA:
            return None
        return new_data(self.entry(row.object, row.position), self.object(row.object), row.entry, 0)

    def address(self, name: str, kind: int) -> int | None:
        row = self._row("n", name)
        return row.entry if row and row.flags & kind else None

    def definitions(self, name: str) -> Collection[Definition] | None:
        row = self._row("n", name)
        if row is None or not row.definers:
            return None
        found = self._definitions.get(name)
        if found is None:
            found = self._definitions[name] = self._definers(row)
        return found

    def _definers(self, row: _Row) -> Collection[Definition]:
        if row.definers == 1:
            return (cast(Definition, _Definition(self, row.object, row.position)),)
        found = _Definers(self, row)
        return tuple(found) if row.definers <= _FEW else found

    # ---- addresses ------------------------------------------------------------------------------

    def symbols_between(self, low: int, high: int) -> list[int]:
        """Addresses of symbols, low <= address < high."""
        count = self.parts["addresses"][1] // 8
        first = self._bisect("addresses", low, count)
        found = []
        while first < count and (address := self._numbers("addresses", "Q", first, 1)[0]) < high:
            found.append(address)
            first += 1
        return found

    def furthest_named(self, address: int) -> int:
        """The furthest end of all named data that starts below `address`; 0 if there is none."""
        before = self._bisect("named", address, self.parts["named"][1] // 24, 3)
        return self._numbers("named", "Q", before * 3 - 1, 1)[0] if before else 0

    def fragments(self, base: str) -> list[tuple[int, int]]:
        """(start, size) of the code that was split off a function, or cloned from it."""
        row = self._row("f", base)
        numbers = self._numbers("lists", "I", row.first, row.definers) if row else []
        return [self._fragment(n) for n in numbers]

    @functools.cached_property
    def _fragments_span(self) -> range:
        count = self.parts["fragments"][1] // 16
        return range(self._fragment(0)[0], sum(self._fragment(count - 1))) if count else range(0)

    def fragment_at(self, address: int) -> tuple[int, int] | None:
        if address not in self._fragments_span:
            return None
        before = self._bisect("fragments", address + 1, self.parts["fragments"][1] // 16, 2)
        found = self._fragment(before - 1) if before else (0, 0)
        return found if found[0] <= address < sum(found) else None

    def _fragment(self, number: int) -> tuple[int, int]:
        start, size = self._numbers("fragments", "Q", number * 2, 2)
        return start, size

    def _bisect(self, part: str, wanted: int, count: int, width: int = 1) -> int:
        """How many of the entries begin below `wanted`."""
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            if self._numbers(part, "Q", middle * width, 1)[0] < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    # ---- the live state -------------------------------------------------------------------------

    @functools.cached_property
    def reserve(self) -> ImageSymbol | None:
        return ImageSymbol(*self.header["reserve"]) if self.header["reserve"] else None

    def exported(self) -> list[str]:
        return list(json.loads(self._whole("exported")))

    def vtables(self) -> list[str]:
        """Symbols that are tables of virtual functions of users' classes."""
        return list(json.loads(self._whole("vtables")))


class _Order(Mapping[str, int]):
    """Object -> position in link order."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def __getitem__(self, name: str) -> int:
        found = self._index.number(name)
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._index.number(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._index.objects())

    def __len__(self) -> int:
        return self._index.parts["objects"][1] // _OBJECT.size


class IndexedFacts(ImageFacts):
    """The facts of which a patch needs few; the others are read from the image when somebody asks."""

    def __init__(self, index: Index, whole: Callable[[], ImageFacts]) -> None:
        known = index.header["facts"]
        self.__dict__.update(known, path=str(index.image), build_id=index.header["build_id"], arena=tuple(known["arena"]),
                             tls=TlsSegment(*known["tls"]) if known["tls"] else None)
        self._index, self._whole = index, whole

    def __getattr__(self, name: str) -> Any:
        if name == "exported":
            self.exported = self._index.exported()
        elif name in ("maps", "symbols", "slots"):
            self.__dict__[name] = getattr(self._whole(), name)
        else:
            raise AttributeError(name)
        return self.__dict__[name]


def live_state(index: Index, whole: Callable[[], ImageFacts]) -> LiveState:
    """What `from_image` gives, by lookup. `whole`: reads the image, for who asks for all of something."""
    from .live import from_image

    @functools.cache
    def parsed() -> LiveState:
        return from_image(whole())

    def lookup(find: Callable[[str], Any], what: str) -> Any:
        return Layered(Lookup(functools.cache(find), lambda: getattr(parsed(), what)))

    facts = IndexedFacts(index, whole)
    return LiveState(
        facts.build_id, facts.kind, facts.path, facts, facts.arena, facts.arena[0], index=index,
        maps=Layered(Lookup(index.map, lambda: index.order, index.order.__contains__)),
        functions=lookup(index.function, "functions"), data=lookup(index.data, "data"),
        types=lookup(lambda s: frozenset(map(index.object, index.users("t", s))) or None, "types"),
        symbols=lookup(lambda n: index.address(n, _SYMBOL), "symbols"),
        tls_symbols=lookup(lambda n: index.address(n, _TLS), "tls_symbols"), ifuncs=set(index.header["ifuncs"]),
        definitions=lookup(index.definitions, "definitions"), order=Layered(index.order))
