"""Damage for bytes, JSON documents and bundles. All of it comes from one `random.Random`, so a seed repeats it."""
from __future__ import annotations

import copy
import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Any

MOST = 1 << 18           # bytes a mutant may grow to
# Boundaries are hit more often by these than by chance.
_NUMBERS = (0, 1, 2, 7, 8, 0x7f, 0x80, 0xff, 0xfff, 0x1000, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 47,
            (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 4096)
_VALUES = (0, 1, -1, 2, 4096, 1 << 31, 1 << 63, 1 << 64, 1 << 200, 1.0, 1e300, True, None, "", "0" * 64, "a" * 64, "\ud800",
           "../../x", "/etc/passwd", "a\nb", "\x1b[2J", "x" * 5000, [], {}, [0, 0], [[]], {"": 0})


def some_bytes(random: Random, data: bytes) -> bytes:
    """1 to 4 damages, most of them small."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        random.choice(_WAYS)(random, out)
    return bytes(out[:MOST])


def _flip(random: Random, out: bytearray) -> None:
    if out:
        out[random.randrange(len(out))] ^= 1 << random.randrange(8)


def _number(random: Random, out: bytearray) -> None:
    width = random.choice((1, 2, 4, 8))
    if len(out) > 8:
        at = random.randrange(len(out) - 8)
        at -= at % width if random.random() < 0.8 else 0
        out[at:at + width] = (random.choice(_NUMBERS) & (1 << 8 * width) - 1).to_bytes(width, "little")


def _near(random: Random, out: bytearray) -> None:
    """A word becomes a little more or less: what counts, sizes and offsets are most sensitive to."""
    if len(out) > 8:
        at = random.randrange(len(out) - 8) // 4 * 4
        value = struct.unpack_from("<I", out, at)[0] + random.choice((-16, -8, -2, -1, 1, 2, 8, 16))
        struct.pack_into("<I", out, at, value & 0xffffffff)


def _cut(random: Random, out: bytearray) -> None:
    at = random.randrange(len(out) + 1)
    del out[at:at + random.choice((1, 4, 8, 64, len(out)))]


def _repeat(random: Random, out: bytearray) -> None:
    at, size = random.randrange(len(out) + 1), random.choice((1, 8, 24, 64, 512))
    out[at:at] = out[at:at + size] * random.choice((1, 1, 2, 16))


def _move(random: Random, out: bytearray) -> None:
    if len(out) > 64:
        size = random.choice((1, 4, 8, 24, 64))
        a, b = random.randrange(len(out) - size), random.randrange(len(out) - size)
        out[a:a + size] = out[b:b + size]


_WAYS: tuple[Callable[[Random, bytearray], None], ...] = (_flip, _flip, _number, _number, _number, _near, _near, _cut, _repeat,
                                                          _move)


# ---- JSON --------------------------------------------------------------------------------------------------------


def _places(document: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value within."""
    found: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        at = waiting.pop()
        keys = list(at) if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else []
        found += [(at, key) for key in keys]
        waiting += [at[key] for key in keys]
    return found


def json_text(random: Random, document: Any) -> str:
    """The document as text, changed in one or two places: values, keys, order, spelling."""
    document = copy.deepcopy(document)
    for _ in range(random.choice((1, 1, 2))):
        places = _places(document)
        if not places:
            break
        home, key = random.choice(places)
        way = random.randrange(6)
        if way == 0:
            home[key] = random.choice(_VALUES)
        elif way == 1 and isinstance(home[key], int):
            home[key] += random.choice((-4096, -1, 1, 8, 4096))
        elif way == 2:
            del home[key]
        elif way == 3 and isinstance(home, list):
            home.insert(0, copy.deepcopy(home[key]))
        elif way == 4 and isinstance(home, dict):
            home[random.choice(("x", "", str(key) + " "))] = home[key]
        else:
            other, its = random.choice(places)
            home[key] = copy.deepcopy(other[its]) if other is not home[key] else 0
    text = json.dumps(document)
    if random.random() < 0.05:
        text = text.replace("0", random.choice(("NaN", "1e999", "-0", "[" * 900 + "]" * 900, "0" * 5000)), 1)
    return text


# ---- bundles -----------------------------------------------------------------------------------------------------


def bundle(random: Random, data: bytes) -> tuple[str, bytes]:
    """(what was damaged, the bundle): as a file, as an archive, or in a member whose hash, size and id are then made right
    again ("sealed")."""
    try:
        return _bundle(random, data)
    except (ValueError, TypeError, LookupError, RecursionError, struct.error):     # a mutant that can't be taken apart any more
        return "file", some_bytes(random, data)


def _bundle(random: Random, data: bytes) -> tuple[str, bytes]:
    way = random.randrange(20)
    members = _members(data) if way >= 3 else None
    if members is None:
        return "file", some_bytes(random, data)
    names = dict(members)
    if way == 3:
        return "archive", _odd_archive(random, names)
    if way < 7:
        names["manifest.json"] = json_text(random, json.loads(names["manifest.json"])).encode()
        return "manifest", pack(list(names.items()))
    if way == 7:
        names["maps-0.json"] = json_text(random, json.loads(names["maps-0.json"])).encode()
        return "maps, sealed", pack(list(_described_again(random, names).items()))
    if way < 11:
        names["payload-0.so"] = some_bytes(random, names["payload-0.so"])
        return "payload, sealed", pack(list(_described_again(random, names).items()))
    names["payload-0.so"] = payload(random, names["payload-0.so"])
    return "payload in place, sealed", pack(list(_described_again(random, names).items()))


def with_payload(data: bytes, payload: bytes) -> bytes:
    """The bundle with another payload, sealed."""
    members = dict(_members(data) or ())
    return pack(list(_described_again(Random(1), members | {"payload-0.so": payload}).items()))


_IN_PLACE: tuple[Callable[[Random, bytearray], None], ...] = (_flip, _flip, _flip, _number, _number, _near, _near, _move)


def payload(random: Random, data: bytes) -> bytes:
    """1 to 3 damages in what ELF knows of, each thing as likely as another: headers, and every section however small."""
    out = bytearray(data)
    start, = struct.unpack_from("<Q", data, 40)
    count, = struct.unpack_from("<H", data, 60)
    headers, = struct.unpack_from("<H", data, 56)
    spots = [(0, 64), (64, 56 * headers), (64, 56 * headers), (start, 64 * count)]
    for row in range(1, count):
        kind, _, _, at, size = struct.unpack_from("<IQQQQ", data, start + 64 * row + 4)
        if kind != 8 and size and at + size <= len(data):         # 8: SHT_NOBITS
            spots.append((at, size))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at, size = random.choice(spots)
        part = out[at:at + size]
        random.choice(_IN_PLACE)(random, part)
        out[at:at + size] = part
    return bytes(out)


@lru_cache(maxsize=64)
def _members(data: bytes) -> tuple[tuple[str, bytes], ...] | None:
    """None for what is no bundle that `json` can take apart."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = tuple((info.filename, archive.read(info)) for info in archive.infolist())
        names = dict(found)
        json.loads(names["maps-0.json"])
        return found if json.loads(names["manifest.json"])["images"][0]["payload"] and names["payload-0.so"] else None
    except Exception:        # whatever zipfile and json raise: such a mutant is damaged as bytes only
        return None


def _described_again(random: Random, members: dict[str, bytes]) -> dict[str, bytes]:
    """Past the hashes: the manifest says of payload and maps what they are now."""
    manifest = json.loads(members["manifest.json"])
    entry, payload, maps = manifest["images"][0], members["payload-0.so"], members["maps-0.json"]
    entry["payload"] |= {"sha256": hashlib.sha256(payload).hexdigest(), "size": len(payload)}
    entry["maps"]["sha256"] = hashlib.sha256(maps).hexdigest()
    if random.random() < 0.8:
        try:
            digests = {m["object"]: hashlib.sha256(_canonical(m)).hexdigest() for m in json.loads(maps)}
            entry["id"] = hashlib.sha256(_canonical({"build_id": entry["build_id"], "generation": entry["generation"],
                                                     "parent": entry["parent"], "maps": digests})).hexdigest()
        except (ValueError, TypeError, KeyError, RecursionError):
            pass             # no maps any more: the old id is as wrong as any
    return members | {"manifest.json": json.dumps(manifest).encode()}


def _canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")


def pack(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED, mode: int = 0o100644) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, method
            archive.writestr(info, content)
    return out.getvalue()


def _odd_archive(random: Random, members: dict[str, bytes]) -> bytes:
    """Another order, names that lead elsewhere, links, members too many or too few, other ways of packing."""
    listed, mode, method = list(members.items()), 0o100644, zipfile.ZIP_STORED
    way = random.randrange(6)
    if way == 0:
        random.shuffle(listed)
    elif way == 1:
        at = random.randrange(len(listed))
        listed[at] = (random.choice(("../" * 8 + "etc/x", "/tmp/x", "payload-0.so/../x", "", "PAYLOAD-0.SO", "payload-1.so")),
                      listed[at][1])
    elif way == 2:
        mode = random.choice((0o120777, 0o040755, 0o020666, 0))
    elif way == 3:
        listed.append((random.choice(("extra", "payload-1.so", "maps-0.json ")), b"x"))
    elif way == 4:
        del listed[random.randrange(len(listed))]
    else:
        method = random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    return pack(listed, method, mode)


# ---- object maps -------------------------------------------------------------------------------------------------


def object_map(random: Random, data: bytes) -> bytes:
    """Section bytes: the packed form damaged, or the document within, packed well again."""
    if random.random() < 0.5 or len(data) < 24:
        return some_bytes(random, data)
    magic, stored, _ = struct.unpack_from("<8sQQ", data)
    try:
        document = json.loads(zlib.decompress(data[24:24 + stored]))
    except (zlib.error, ValueError):
        return some_bytes(random, data)
    raw = json_text(random, document).encode()
    packed = zlib.compress(raw, 1)
    blob = struct.pack("<8sQQ", magic, len(packed), len(raw) + random.choice((0, 0, 0, 0, 1, -1))) + packed
    return blob + b"\0" * (-len(blob) % 8)
