"""The bundle file: its archive, its manifest, hashes and ids, computed anew from its bytes. Format: docs/formats.md."""
from __future__ import annotations

import hashlib
import io
import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any

from .. import schema
from .verdict import Verdict

_MANIFEST = "manifest.json"
_MOST = {"manifest": 64 << 20, "payload": 1 << 30, "maps": 256 << 20}      # bytes a member may unpack to
_MOST_IMAGES, _MOST_PROBLEMS = 16, 100
# What all members may unpack to together: JSON packs some twentyfold, zeros a thousandfold.
_FREE, _RATIO = 16 << 20, 100
_NO_PARENT = "0" * 64
_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError,
               OverflowError, LookupError, MemoryError, OSError, RecursionError)


@dataclass
class Contents:
    """What a bundle holds, as far as it could be read."""
    manifest: dict[str, Any] = field(default_factory=dict)
    members: dict[str, bytes] = field(default_factory=dict)

    @property
    def images(self) -> list[dict[str, Any]]:
        return list(self.manifest.get("images", []))

    def payload(self, number: int) -> bytes:
        return self.members[f"payload-{number}.so"]


def check(data: bytes, verdict: Verdict) -> Contents | None:
    """Run the checks of the file itself. None where nothing further can be looked at; whatever the bytes are."""
    found = Contents()
    if not verdict.found("archive", "bundle", _read_archive(data, found)):
        _give_up(verdict, "the archive is not sound")
        return None
    if not verdict.found("manifest-schema", _MANIFEST, _read_manifest(found)):
        _give_up(verdict, "the manifest is not sound")
        return None
    sound = True
    for number, entry in enumerate(found.images):
        sound &= verdict.found("payload-hash", f"payload-{number}.so", _payload_problems(found, number, entry))
        maps: dict[str, str] = {}
        sound &= verdict.found("maps-hash", f"maps-{number}.json", _maps_problems(found, number, entry, maps))
        sound &= verdict.found("generation-id", f"maps-{number}.json", _id_problems(entry, maps))
    return found if sound else None


def _give_up(verdict: Verdict, why: str) -> None:
    for check_ in ("manifest-schema", "payload-hash", "maps-hash", "generation-id"):
        if not any(o.check == check_ for o in verdict.outcomes):
            verdict.cannot(check_, "bundle", why)


def _read_archive(data: bytes, found: Contents) -> Iterator[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            problems = list(_member_problems(archive.infolist(), data, archive.start_dir))
            problems += [f"{len(archive.comment)} bytes of comment follow the directory"] if archive.comment else []
            yield from problems
            if not problems:
                found.members = {info.filename: archive.read(info) for info in archive.infolist()}
                yield from (f"{i.filename} unpacks to {len(found.members[i.filename])} bytes, not {i.file_size}"
                            for i in archive.infolist() if len(found.members[i.filename]) != i.file_size)
    except _ZIP_DAMAGE as e:
        yield f"it is not a sound zip archive: {str(e) or type(e).__name__}"


def _member_problems(infos: list[zipfile.ZipInfo], data: bytes, directory: int) -> Iterator[str]:
    images = (len(infos) - 1) // 2
    wanted = [_MANIFEST, *(f"payload-{n}.so" for n in range(images)), *(f"maps-{n}.json" for n in range(images))]
    listed = [info.filename for info in infos]
    if listed != wanted or not 1 <= images <= _MOST_IMAGES:
        yield f"it holds {', '.join(repr(n[:60]) for n in listed[:6]) or 'nothing'}, not {', '.join(wanted[:6])}"
        return
    if sum(info.file_size for info in infos) > _FREE + _RATIO * len(data):
        yield f"its {len(data)} bytes would unpack to {sum(info.file_size for info in infos)}"
    at = 0
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or info.flag_bits & 1:
            yield f"{info.filename} is no plain file"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            yield f"{info.filename} is packed by method {info.compress_type}"
        limit = _MOST[info.filename.partition("-")[0].partition(".")[0]]
        if info.file_size > limit:
            yield f"{info.filename} would unpack to {info.file_size} bytes, more than {limit}"
        if info.header_offset != at:
            yield f"{info.filename} begins at byte {info.header_offset}, not at {at}: something lies between the members"
        at = info.header_offset + 30 + _local_lengths(data, info.header_offset) + info.compress_size
    if at != directory:
        yield f"{directory - at} bytes lie between the members and their directory"


def _local_lengths(data: bytes, offset: int) -> int:
    """Bytes of name and extra field behind a member's own header (APPNOTE.TXT §4.3.7)."""
    name, extra = struct.unpack_from("<HH", data, offset + 26)
    return int(name) + int(extra)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key occurs twice")
    return made


def _no_number(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def _parse(data: bytes) -> Any:
    return json.loads(data, object_pairs_hook=_distinct, parse_constant=_no_number)


def _read_manifest(found: Contents) -> Iterator[str]:
    try:
        manifest = _parse(found.members[_MANIFEST])
    except (ValueError, RecursionError) as e:
        yield f"it is no JSON document: {e}"
        return
    try:
        problems = list(islice(schema.problems(manifest, schema.load("manifest.schema.json")), _MOST_PROBLEMS))
    except RecursionError:
        problems = ["it is nested too deeply"]
    yield from problems
    if problems:
        return
    found.manifest = manifest
    if 1 + 2 * len(found.images) != len(found.members):
        yield f"it speaks of {len(found.images)} images, the archive holds {(len(found.members) - 1) // 2}"
    if len({entry["build_id"] for entry in found.images}) != len(found.images):
        yield "two images have one build-id"
    for number, entry in enumerate(found.images):
        if (entry["payload"]["file"], entry["maps"]["file"]) != (f"payload-{number}.so", f"maps-{number}.json"):
            yield f"image {number} has its payload in {entry['payload']['file']} and its maps in {entry['maps']['file']}"


def _payload_problems(found: Contents, number: int, entry: dict[str, Any]) -> Iterator[str]:
    data = found.payload(number)
    if len(data) != entry["payload"]["size"]:
        yield f"it has {len(data)} bytes, the manifest says {entry['payload']['size']}"
    if hashlib.sha256(data).hexdigest() != entry["payload"]["sha256"]:
        yield f"its SHA-256 is {hashlib.sha256(data).hexdigest()}, the manifest says {entry['payload']['sha256']}"


def _maps_problems(found: Contents, number: int, entry: dict[str, Any], maps: dict[str, str]) -> Iterator[str]:
    data = found.members[f"maps-{number}.json"]
    if hashlib.sha256(data).hexdigest() != entry["maps"]["sha256"]:
        yield f"its SHA-256 is {hashlib.sha256(data).hexdigest()}, the manifest says {entry['maps']['sha256']}"
    try:
        digests, described = _digests_of_maps(data)
    except RecursionError:
        yield "its object maps are nested too deeply"
        return
    except ValueError as e:
        yield f"it is no JSON document: {e}"
        return
    if described is None:
        yield "it is no list of object maps"
    elif len(digests) != described:
        yield "two maps describe one object"
    maps.update(digests)


@lru_cache(maxsize=16)
def _digests_of_maps(data: bytes) -> tuple[dict[str, str], int | None]:
    """Object -> digest of its map, and how many maps there are; None: they are no list of maps. Raises ValueError and, for what
    is nested too deeply, RecursionError."""
    documents = _parse(data)
    if not isinstance(documents, list) or not all(isinstance(d, dict) and isinstance(d.get("object"), str) for d in documents):
        return {}, None
    return {d["object"]: hashlib.sha256(_canonical(d)).hexdigest() for d in documents}, len(documents)


def _id_problems(entry: dict[str, Any], digests: dict[str, str]) -> Iterator[str]:
    document = {"build_id": entry["build_id"], "generation": entry["generation"], "parent": entry["parent"], "maps": digests}
    computed = hashlib.sha256(_canonical(document)).hexdigest()
    if computed != entry["id"]:
        yield f"the id should be {computed}, the manifest says {entry['id']}"
    if (entry["parent"] == _NO_PARENT) != (entry["generation"] == 1):
        yield f"generation {entry['generation']} cannot follow {entry['parent']}"


def _canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")
