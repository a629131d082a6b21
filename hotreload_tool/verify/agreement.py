"""The manifest beside the payload: what it lists is what the tables do, no more and no less."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .. import names
from ..payload import NEW_SUFFIX
from . import transience
from .linked import TLS
from .space import Space, stub_slot
from .tables import Payload


def problems(payload: Payload, entry: dict[str, Any], space: Space | None) -> Iterator[str]:
    if bool(entry.get("transient", False)) != transience.is_marked(payload):
        yield f"that it may be unmapped is {entry.get('transient', False)} in the manifest and not so in the payload"
    yield from _changed(payload, entry)
    yield from _added(payload, entry)
    yield from _data(payload, entry)
    if space is not None:
        yield from _bound(entry, space)


def _difference(what: str, table: Iterable[tuple[Any, ...]], listed: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    did, said = set(table), set(listed)
    yield from (f"{what} {_shown(row)} is in the payload and not in the manifest" for row in sorted(did - said))
    yield from (f"{what} {_shown(row)} is in the manifest and not in the payload" for row in sorted(said - did))


def _shown(row: tuple[Any, ...]) -> str:
    return " ".join(hex(v) if isinstance(v, int) else str(v) for v in row)


def _changed(payload: Payload, entry: dict[str, Any]) -> Iterator[str]:
    yield from _difference("redirect", ((r.slot, r.old, r.old_size, r.new, r.new_size) for r in payload.redirects),
                           ((c["slot"], c["old_body"], c["old_size"], c["body"], c["size"]) for c in entry["changed"]))
    for c in entry["changed"]:
        called = {s.name for s in payload.file.by_address.get(c["body"], [])}
        if called and c["name"] + NEW_SUFFIX not in called:
            yield f"{c['name']} is said to be at {c['body']:#x}, where {', '.join(sorted(called))} is"


def _added(payload: Payload, entry: dict[str, Any]) -> Iterator[str]:
    made = {(a["name"], a["slot"]) for a in entry["added"]}
    yield from _difference("new function", {(name, slot) for slot, name in payload.own_slots.items()}, made)
    for a in entry["added"]:
        if stub_slot(payload.file, a["entry"]) != a["slot"]:
            yield f"{a['name']}: at {a['entry']:#x} there is no stub for its slot"
        elif payload.pointer(a["slot"]) != a["body"]:
            yield f"{a['name']}: its slot holds {payload.pointer(a['slot']):#x}, the manifest says {a['body']:#x}"
        elif a["size"] not in {s.size for s in payload.file.by_address.get(a["body"], [])} | {0}:
            yield f"{a['name']}: its code has another size than {a['size']} bytes"


def _data(payload: Payload, entry: dict[str, Any]) -> Iterator[str]:
    if "writes" in entry["data"]:            # bundles made before it was listed do without
        yield from _difference("update", ((u.address, u.size, u.flags) for u in payload.updates),
                               (tuple(row) for row in entry["data"]["writes"]))
    for d in entry["data"]["added"]:
        found = [s for s in payload.file.by_address.get(d["address"], []) if s.name == d["name"]]
        if not found or found[0].size != d["size"]:
            yield f"new variable {d['name']} is not at {d['address']:#x} with {d['size']} bytes"
        elif d["extent"] < d["size"] or payload.file.load_of(d["address"], d["extent"]) is None:
            yield f"new variable {d['name']} has no {d['extent']} bytes to grow to"
    spans = [(d["address"], d["address"] + d["size"], d["name"]) for d in entry["data"]["updated"]]
    yield from (f"{name} is said to take new content, and nothing in the payload writes there" for start, end, name in spans
                if not any(start <= u.address and u.address + u.size <= end for u in payload.updates))


def _bound(entry: dict[str, Any], space: Space) -> Iterator[str]:
    """What goes on under a new name must begin where something is."""
    thread_local = {s.value for s in space.image.symbols if s.type == TLS and s.defined}
    room = [range(s.value, s.value + s.size) for s in space.image.symbols if s.name == names.TLS_RESERVE and s.type == TLS]
    for b in entry["data"]["bound"]:
        if not space.symbols_at(b["address"]) and b["address"] not in thread_local and not any(b["address"] in r for r in room):
            yield f"{b['name']} is said to live at {b['address']:#x}, where nothing begins"
