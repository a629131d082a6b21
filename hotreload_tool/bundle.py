"""Payloads and manifest in one file: a zip archive that can be sent, kept and checked. Format: docs/formats.md, "Bundle".

What `read` returns fits together: schema, hashes, sizes, ids, and names that the maps know. Anything else raises
Damaged. Nothing is ever unpacked to a path that the archive names, or unpacked beyond a bound.
"""
from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from . import schema, steps
from .errors import Damaged, about
from .objectmap import MapError, ObjectMap

FORMAT = 1
SUFFIX = ".hotpatch"
SCHEMA = "manifest.schema.json"
MAX_IMAGES = 16                  # HR_MAX_PAYLOADS of runtime/hotreload_abi.h
_MANIFEST = "manifest.json"
# Bounds on what a member may unpack to; deflate packs zeros a thousandfold.
_MAX_MANIFEST, _MAX_MAPS, _MAX_PAYLOAD = 64 << 20, 256 << 20, 1 << 30
# … and on what all of them may, in proportion to the file: JSON packs some twentyfold.
_FREE, _RATIO = 16 << 20, 100
_PAGE = 4096
_EPOCH = (1980, 1, 1, 0, 0, 0)   # the zip format's first moment: equal input gives equal bytes
_MODE = stat.S_IFREG | 0o644
_NO_ID = "0" * 64
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError,
               OverflowError, LookupError, MemoryError, OSError)   # what zipfile and json raise for damaged input


@dataclass
class ImagePatch:
    """What a bundle holds for one image. `entry` is an entry of the manifest's `images`, without `payload`, `maps`, `id`."""
    entry: dict[str, Any]
    payload: bytes
    maps: list[ObjectMap]


@dataclass
class Bundle:
    manifest: dict[str, Any]
    payloads: list[bytes]            # payload-N.so
    maps: list[list[ObjectMap]]      # maps-N.json

    def image(self, build_id: str) -> tuple[dict[str, Any], bytes, list[ObjectMap]] | None:
        """(manifest entry, payload, maps) for an image, None if the bundle brings nothing to it."""
        for entry, payload, maps in zip(self.manifest["images"], self.payloads, self.maps):
            if entry["build_id"] == build_id:
                return entry, payload, maps
        return None


def canonical_json(document: Any) -> bytes:
    """One spelling for equal documents: keys sorted, no white space, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def generation_id(build_id: str, generation: int, parent: str, maps: Iterable[ObjectMap]) -> str:
    """The id of a generation, 64 hex digits: a hash over the image, the place in the chain, and the maps it brings.

    It does not cover the payload's bytes, since they hold it.
    """
    digests = {m.object: hashlib.sha256(canonical_json(m.to_json())).hexdigest() for m in maps}
    document = {"build_id": build_id, "generation": generation, "parent": parent, "maps": digests}
    return hashlib.sha256(canonical_json(document)).hexdigest()


def file_name(program: str, generation: int) -> str:
    """`NAME.GEN.hotpatch` for the program at build-relative path `program`."""
    return f"{Path(program).name}.{generation}{SUFFIX}"


# ---- writing -----------------------------------------------------------------------------------------------------


def build(program: str, images: Sequence[ImagePatch], *, created: str, tool: str) -> Bundle:
    """Put a bundle together: file names, sizes, hashes and ids are filled in. `created` is UTC, "2026-11-22T10:00:00Z"."""
    entries = []
    for number, patch in enumerate(images):
        maps = _encode_maps(patch.maps)
        entries.append({
            **patch.entry,
            "id": generation_id(patch.entry["build_id"], patch.entry["generation"], patch.entry["parent"], patch.maps),
            "payload": {"file": f"payload-{number}.so", **measured(patch.payload)},
            "maps": {"file": f"maps-{number}.json", "sha256": _sha256(maps)},
        })
    manifest = {"format": FORMAT, "tool": tool, "program": program, "created": created, "images": entries}
    return Bundle(manifest, [p.payload for p in images], [p.maps for p in images])


def measured(payload: bytes) -> dict[str, Any]:
    """What the manifest says of a payload's bytes."""
    return {"sha256": _sha256(payload), "size": len(payload)}


def encode(bundle: Bundle) -> bytes:
    """The bytes of a bundle file; equal for equal bundles. Raises Damaged for one that `decode` would not take."""
    _check(bundle, "new bundle")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        _put(archive, _MANIFEST, canonical_json(bundle.manifest), zipfile.ZIP_DEFLATED)
        for number, payload in enumerate(bundle.payloads):
            _put(archive, f"payload-{number}.so", payload, zipfile.ZIP_STORED)
        for number, maps in enumerate(bundle.maps):
            _put(archive, f"maps-{number}.json", _encode_maps(maps), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def write(path: Path | str, bundle: Bundle) -> None:
    """Write `path` as a whole or not at all. Raises Damaged as `encode` does, OSError."""
    write_atomically(Path(path), encode(bundle))


sync: Callable[[int], None] = os.fsync     # a resident session does it behind (watch/behind.py)


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Readers see the old file or the new one, also after a crash. Raises OSError, with the file's name."""
    with about(path):
        _write_atomically(path, data, mode)


def _write_atomically(path: Path, data: bytes, mode: int) -> None:
    # The name begins with a dot: what a crash leaves is told by that (baseline.Store.prune).
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            sync(file.fileno())
        steps.reached(steps.Step.NAME)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _put(archive: zipfile.ZipFile, name: str, data: bytes, method: int) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system, info.external_attr, info.compress_type = 3, _MODE << 16, method   # 3: Unix, APPNOTE.TXT 4.4.2
    archive.writestr(info, data, method, 6)


def _encode_maps(maps: Sequence[ObjectMap]) -> bytes:
    return canonical_json([m.to_json() for m in maps])


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---- reading -----------------------------------------------------------------------------------------------------


def read(path: Path | str) -> Bundle:
    """Read and check a bundle. Raises Damaged, or OSError if the file cannot be read at all."""
    steps.reached(steps.Step.READ)
    return decode(Path(path).read_bytes(), str(path))


def decode(data: bytes, where: str = "bundle") -> Bundle:
    """Check the bytes of a bundle file and take them apart. Raises Damaged, nothing else, whatever the bytes are."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = _members(archive, where)
            unpacked = sum(info.file_size for info in members)
            if unpacked > _FREE + _RATIO * len(data):
                raise Damaged(where, "members", f"{len(data)} bytes would unpack to {unpacked}")
            manifest = _manifest(archive, members, where)
            images = manifest["images"]
            payloads = [_payload(archive, members, entry, where) for entry in images]
            maps = [_maps(archive, members, entry, where) for entry in images]
    except _UNREADABLE as e:
        raise Damaged(where, "", f"not a bundle, or damaged: {e or type(e).__name__}") from e
    bundle = Bundle(manifest, payloads, maps)
    _check(bundle, where)
    return bundle


def _members(archive: zipfile.ZipFile, where: str) -> list[zipfile.ZipInfo]:
    """The members, all of them expected, in the order of the format."""
    infos = archive.infolist()
    images = (len(infos) - 1) // 2
    wanted = _member_names(images)
    found = [info.filename for info in infos]
    if found != wanted or not 1 <= images <= MAX_IMAGES:
        raise Damaged(where, "members", f"holds {_shortened(found)}, not {_shortened(wanted) if images > 0 else _MANIFEST}")
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or info.flag_bits & 1:
            raise Damaged(where, info.filename, "is not a plain file")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Damaged(where, info.filename, f"is packed by method {info.compress_type}; only stored and deflated are read")
    return infos


def _member_names(images: int) -> list[str]:
    return [_MANIFEST, *(f"payload-{n}.so" for n in range(images)), *(f"maps-{n}.json" for n in range(images))]


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(repr(n[:60]) for n in names[:5]) + (" …" if len(names) > 5 else "") if names else "nothing"


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int, where: str) -> bytes:
    """A member's content. zipfile never unpacks more than the size it declares, and checks its CRC."""
    if info.file_size > most:
        raise Damaged(where, info.filename, f"would unpack to {info.file_size} bytes; at most {most} are read")
    data = archive.read(info)
    if len(data) != info.file_size:
        raise Damaged(where, info.filename, f"unpacks to {len(data)} bytes, not {info.file_size}")
    return data


def _json(data: bytes, where: str, member: str) -> Any:
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise Damaged(where, member, "a key occurs twice")
        return found

    def refuse(constant: str) -> Any:
        raise Damaged(where, member, f"{constant} is no JSON number")

    return json.loads(data, object_pairs_hook=distinct, parse_constant=refuse)


def _manifest(archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], where: str) -> dict[str, Any]:
    manifest = _json(_content(archive, members[0], _MAX_MANIFEST, where), where, _MANIFEST)
    _check_manifest(manifest, where)
    images = manifest["images"]
    if len(members) != 1 + 2 * len(images):
        raise Damaged(where, _MANIFEST, f"speaks of {len(images)} images, the archive holds {(len(members) - 1) // 2}")
    checked: dict[str, Any] = manifest
    return checked


def _check_manifest(manifest: Any, where: str) -> None:
    if isinstance(manifest, dict) and manifest.get("format", FORMAT) != FORMAT:
        raise Damaged(where, _MANIFEST, f"format {manifest['format']!r}; this version reads format {FORMAT}")
    for problem in schema.problems(manifest, schema.load(SCHEMA)):
        raise Damaged(where, _MANIFEST, problem)


def _payload(archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], entry: Mapping[str, Any], where: str) -> bytes:
    info = _named(members, entry["payload"]["file"], where)
    data = _content(archive, info, _MAX_PAYLOAD, where)
    if len(data) != entry["payload"]["size"] or _sha256(data) != entry["payload"]["sha256"]:
        raise Damaged(where, info.filename, "is not what the manifest describes (size or sha256 differ)")
    return data


def _maps(archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], entry: Mapping[str, Any], where: str) -> list[ObjectMap]:
    info = _named(members, entry["maps"]["file"], where)
    data = _content(archive, info, _MAX_MAPS, where)
    if _sha256(data) != entry["maps"]["sha256"]:
        raise Damaged(where, info.filename, "is not what the manifest describes (sha256 differs)")
    documents = _json(data, where, info.filename)
    if not isinstance(documents, list):
        raise Damaged(where, info.filename, "is not a list of object maps")
    try:
        maps = [ObjectMap.from_json(document) for document in documents]
    except MapError as e:
        raise Damaged(where, info.filename, str(e)) from e
    if not all(_fits(m, ObjectMap) for m in maps):
        raise Damaged(where, info.filename, "a field of an object map has a value of the wrong type")
    return maps


def _fits(value: Any, hint: Any) -> bool:
    """Whether `value` is what the type `hint` of a dataclass's field promises."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is list:
        return isinstance(value, list) and all(_fits(v, args[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items())
    if args:
        return any(_fits(value, arg) for arg in args)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return isinstance(value, hint) and all(_fits(getattr(value, n), h) for n, h in _hints(hint).items())
    return type(value) is hint


@lru_cache
def _hints(of: type) -> dict[str, Any]:
    return get_type_hints(of)


def _named(members: Sequence[zipfile.ZipInfo], name: str, where: str) -> zipfile.ZipInfo:
    for info in members:
        if info.filename == name:
            return info
    raise Damaged(where, _MANIFEST, f"speaks of {name}, which the archive does not hold")


# ---- what must hold beyond the schema ----------------------------------------------------------------------------


def _check(bundle: Bundle, where: str) -> None:
    _check_manifest(bundle.manifest, where)
    images = bundle.manifest["images"]
    if not len(images) == len(bundle.payloads) == len(bundle.maps):
        raise Damaged(where, _MANIFEST, f"{len(images)} images, {len(bundle.payloads)} payloads, "
                                        f"{len(bundle.maps)} lists of maps")
    for number, (entry, maps) in enumerate(zip(images, bundle.maps)):
        at = f"image {number}"
        for problem in (*_chain_problems(entry, number, maps), *_range_problems(entry), *_name_problems(entry, maps)):
            raise Damaged(where, at, problem)
    if len({entry["build_id"] for entry in images}) != len(images):
        raise Damaged(where, _MANIFEST, "two images have one build-id")


def _chain_problems(entry: Mapping[str, Any], number: int, maps: Sequence[ObjectMap]) -> Iterable[str]:
    if (entry["payload"]["file"], entry["maps"]["file"]) != (f"payload-{number}.so", f"maps-{number}.json"):
        yield f"its files are called {entry['payload']['file']} and {entry['maps']['file']}"
    if (entry["parent"] == _NO_ID) != (entry["generation"] == 1):
        yield f"generation {entry['generation']} cannot follow {entry['parent']}"
    if entry["id"] != generation_id(entry["build_id"], entry["generation"], entry["parent"], maps):
        yield "its id does not belong to its build-id, generation, parent and maps"


def _range_problems(entry: Mapping[str, Any]) -> Iterable[str]:
    start, end = entry["arena"]
    if start > end or start % _PAGE or end % _PAGE:
        yield f"arena {start:#x}..{end:#x} is no range of pages"
    placed = [(f["name"], f["body"], f["size"]) for f in (*entry["changed"], *entry["added"])]
    placed += [(f["name"], f[part], 0) for f in entry["added"] for part in ("entry", "slot")]
    placed += [(d["name"], d["address"], d["size"]) for d in entry["data"]["added"]]
    for name, address, size in placed:
        if not start <= address <= address + size <= end:
            yield f"{name} at {address:#x}, {size} bytes, lies outside the arena range {start:#x}..{end:#x}"


def _name_problems(entry: Mapping[str, Any], maps: Sequence[ObjectMap]) -> Iterable[str]:
    functions = {(f.name, m.object) for m in maps for f in m.functions}
    data = {d.name for m in maps for d in m.data}
    if len({m.object for m in maps}) != len(maps):
        yield "two maps of one object"
    added, bound = entry["data"]["added"], entry["data"]["bound"]
    for function in (*entry["changed"], *entry["added"]):
        if (function["name"], function["object"]) not in functions:
            yield f"{function['name']} of {function['object']} is in none of its maps"
    for record in (*added, *entry["data"]["updated"]):
        if record["name"] not in data:
            yield f"{record['name']} is in none of its maps"
    for records in ([*entry["changed"], *entry["added"]], [*added, *entry["data"]["updated"]], [*added, *bound]):
        names = [record["name"] for record in records]
        if len(set(names)) != len(names):
            yield "a name occurs twice"
