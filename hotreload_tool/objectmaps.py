"""The maps of an image's object files, read when they are asked for; of what is known of a file its identity tells.

    HOTRELOAD_DIR/objectmaps.json      path -> identity of the file, digest of its map
"""
from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from . import bundle, elf, index, instrument
from .errors import HotreloadError
from .names import MAP_SECTION
from .objectmap import ObjectMap
from .request import ObjectRequest
from .stamp import stamp

if TYPE_CHECKING:
    from .baseline import Store
    from .live import LiveState

_FILE = "objectmaps.json"
_SETTLED = 1_000_000_000       # ns since the last change: what changes again within one tick of the clock looks the same
_MANY = 64                     # digests that were not known: from so many on they are written down


class ObjectMaps:
    """Of one image's objects, by name."""

    def __init__(self, store: Store, objects: Iterable[ObjectRequest]) -> None:
        self._store, self._paths = store, {o.name: o.path for o in objects}
        self._known = _read(store)
        self._digests: dict[str, bytes] = {}
        self._maps: dict[str, ObjectMap | None] = {}
        self._learnt = 0

    def digest(self, name: str) -> bytes:
        """Of the map as stored (index.digest); empty for an object that was not instrumented. Raises Refused, OSError."""
        found = self._digests.get(name)
        if found is None:
            found = self._digests[name] = self._digest(self._paths[name])
        return found

    def map(self, name: str) -> ObjectMap | None:
        """None if it was not instrumented. Raises Refused, OSError."""
        if name not in self._maps:
            self._maps[name] = instrument.carried_map(self._paths[name])
        return self._maps[name]

    def suspects(self, live: LiveState) -> Iterable[str]:
        """Names of objects, in link order, among which are all that may not be as they live: of these, and of the image's."""
        return dict.fromkeys([*self._paths, *live.maps])

    def _digest(self, path: str) -> bytes:
        file, known = stamp(path), self._known.get(path)
        if file is not None and known is not None and known[0] == list(file):
            with contextlib.suppress(ValueError):
                return bytes.fromhex(known[1])
        found = _digest_of(path)
        if file is not None and time.time_ns() - file.changed_ns > _SETTLED:
            self._known[path] = (list(file), found.hex())
            self._learnt += 1
        return found

    def remember(self) -> None:
        """Write down what was learnt, if it is worth that. Whoever else does so at the same time loses nothing but time."""
        if self._learnt >= _MANY:
            _write(self._store, {path: known for path, known in self._known.items() if os.path.exists(path)})
            self._learnt = 0


class GivenMaps(ObjectMaps):
    """Maps that were read already."""

    def __init__(self, maps: Mapping[str, ObjectMap]) -> None:
        self._given = maps

    def digest(self, name: str) -> bytes:
        return b"given" if name in self._given else b""

    def map(self, name: str) -> ObjectMap | None:
        return self._given.get(name)

    def suspects(self, live: LiveState) -> Iterable[str]:
        return dict.fromkeys([*self._given, *live.maps])

    def remember(self) -> None:
        pass


def note(store: Store, paths: Iterable[str]) -> None:
    """Read the digests of these objects now, so that a patch need not."""
    maps = ObjectMaps(store, [ObjectRequest(path, path, False) for path in paths])
    with contextlib.suppress(HotreloadError, OSError):       # who patches is told
        for path in maps._paths:
            maps.digest(path)
        maps.remember()


def _digest_of(path: str) -> bytes:
    try:
        section = elf.read_section(path, MAP_SECTION)
    except (elf.ElfError, ValueError):
        section = None
        instrument.carried_map(path)         # says what is wrong
    found = list(index.stored_maps(section)) if section else []
    return index.digest(section[found[0][0]:sum(found[0])]) if section and found else b""


def _read(store: Store) -> dict[str, Any]:
    try:
        found = json.loads((store.root / _FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    objects = found.get("objects") if isinstance(found, dict) else None
    return {path: known for path, known in (objects if isinstance(objects, dict) else {}).items()
            if isinstance(known, list) and len(known) == 2 and isinstance(known[1], str)}


def _write(store: Store, known: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        bundle.write_atomically(store.root / _FILE, json.dumps({"objects": known}, separators=(",", ":")).encode())
