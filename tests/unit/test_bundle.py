"""bundle.py and schema/: what is written is read back; anything else is Damaged."""

from __future__ import annotations

import copy
import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapmaker import fn, objmap, var

from hotreload_tool import bundle, schema
from hotreload_tool.bundle import Bundle, ImagePatch, decode, encode, generation_id
from hotreload_tool.errors import Damaged

NO_ID = "0" * 64
MAPS = [objmap("a.o", fn("f", "2"), fn("g"), var("v"), var("k", kind="rodata")), objmap("b.o")]


def entry(**fields: Any) -> dict[str, Any]:
    return {
        "build_id": "ab" * 20,
        "kind": "pie",
        "generation": 1,
        "parent": NO_ID,
        "arena": [0x10000, 0x12000],
        "changed": [
            {
                "name": "f",
                "object": "a.o",
                "slot": 0x6000,
                "old_body": 0x2000,
                "old_size": 16,
                "body": 0x10000,
                "size": 32,
            }
        ],
        "added": [{"name": "g", "object": "a.o", "entry": 0x10040, "slot": 0x11000, "body": 0x10080, "size": 16}],
        "removed": [{"name": "h", "object": "a.o"}],
        "data": {
            "added": [{"name": "v", "object": "a.o", "address": 0x11800, "size": 4, "extent": 64}],
            "updated": [{"name": "k", "address": 0x9000, "size": 4}],
            "bound": [{"name": "n.1~a.o", "address": 0x8000, "extent": 8, "was": "n.0~a.o"}],
        },
        "notes": ["f is über"],
        **fields,
    }


def make(*patches: ImagePatch, created: str = "2026-11-22T10:00:00Z") -> Bundle:
    return bundle.build(
        "build/game", patches or [ImagePatch(entry(), b"\x7fELF payload", MAPS)], created=created, tool="0.1.0"
    )


GOOD = make()
BYTES = encode(GOOD)


def archive(members: list[tuple[Any, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as zipped:
        for name, data in members:
            zipped.writestr(name, data)
    return out.getvalue()


def members(data: bytes = BYTES) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        return {info.filename: zipped.read(info) for info in zipped.infolist()}


# ---- round trip --------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "game.1.hotpatch"
    bundle.write(path, GOOD)
    assert bundle.read(path) == GOOD and bundle.read(str(path)) == GOOD
    assert os.listdir(tmp_path) == [path.name], "no temporary file stays"


def test_several_images():
    two = make(ImagePatch(entry(), b"one", MAPS), ImagePatch(entry(build_id="cd" * 20, kind="shared"), b"two", MAPS))
    again = decode(encode(two))
    assert again == two and again.payloads == [b"one", b"two"]
    assert list(members(encode(two))) == ["manifest.json", "payload-0.so", "payload-1.so", "maps-0.json", "maps-1.json"]
    found = again.image("cd" * 20)
    assert found is not None and found[1] == b"two" and again.image("00") is None


def test_equal_input_gives_equal_bytes_except_for_the_date():
    assert encode(make()) == BYTES
    assert encode(make(created="2027-01-01T00:00:00Z")) != BYTES


def test_a_bundle_of_another_tool_may_be_deflated_or_stored():
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert decode(archive(list(members().items()), method)) == GOOD


def test_the_name_of_the_file():
    assert bundle.file_name("build/game", 12) == "game.12.hotpatch"


def test_the_id_covers_image_place_and_maps():
    base = generation_id("ab", 1, NO_ID, MAPS)
    assert generation_id("ab" * 20, 1, NO_ID, MAPS) == GOOD.manifest["images"][0]["id"] and len(base) == 64
    others = {
        generation_id("ac", 1, NO_ID, MAPS),
        generation_id("ab", 2, NO_ID, MAPS),
        generation_id("ab", 1, "1" * 64, MAPS),
        generation_id("ab", 1, NO_ID, MAPS[:1]),
        generation_id("ab", 1, NO_ID, [objmap("a.o", fn("f", "3")), MAPS[1]]),
    }
    assert len(others | {base}) == 6
    assert generation_id("ab", 1, NO_ID, MAPS[::-1]) == base


def test_writing_replaces_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "game.1.hotpatch"
    path.write_bytes(b"old")
    monkeypatch.setattr(bundle, "sync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        bundle.write(path, GOOD)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == [path.name]


def test_what_could_not_be_read_is_not_written(tmp_path):
    bad = copy.deepcopy(GOOD)
    bad.manifest["images"][0]["kind"] = "core"
    with pytest.raises(Damaged, match="core"):
        bundle.write(tmp_path / "x", bad)
    assert os.listdir(tmp_path) == []


# ---- damage: the archive -----------------------------------------------------------------------------------------


def rejected(data: bytes, said: str) -> None:
    with pytest.raises(Damaged, match=said) as caught:
        decode(data, "some.hotpatch")
    assert caught.value.exit_code == 5 and caught.value.file == "some.hotpatch"


def test_no_archive_at_all():
    rejected(b"", "not a bundle")
    rejected(b"\x7fELF" + bytes(1000), "not a bundle")


def test_truncated_anywhere():
    for size in range(0, len(BYTES), 7):
        rejected(BYTES[:size], "some.hotpatch")


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda m: m[:-1], "holds"),
        (lambda m: m + [("extra", b"")], "holds"),
        (lambda m: m + [m[-1]], "holds"),
        (lambda m: m[::-1], "holds"),
        (lambda m: [], "holds nothing"),
        (lambda m: m[:1], "holds"),
        (lambda m: [m[0], ("../payload-0.so", m[1][1]), m[2]], "holds"),
        (lambda m: [m[0], ("/payload-0.so", m[1][1]), m[2]], "holds"),
        (lambda m: [m[0], m[1], m[1]], "holds"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_only_the_expected_members(change, said):
    rejected(archive(change(list(members().items()))), said)


def test_a_symbolic_link_as_a_member():
    link = zipfile.ZipInfo("payload-0.so")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    m = members()
    rejected(
        archive([("manifest.json", m["manifest.json"]), (link, b"/etc/passwd"), ("maps-0.json", m["maps-0.json"])]),
        "plain file",
    )


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing(method):
    rejected(archive(list(members().items()), method), "only stored and deflated")


def test_a_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(bundle, "_MAX_PAYLOAD", 1 << 20)
    m = members()
    bomb = archive(
        [*list(m.items())[:1], ("payload-0.so", bytes(4 << 20)), ("maps-0.json", m["maps-0.json"])],
        zipfile.ZIP_DEFLATED,
    )
    assert len(bomb) < 64 << 10
    rejected(bomb, "at most 1048576 are read")


def test_a_bomb_that_lies_about_its_size():
    """The central directory says 16 bytes; what unpacks to more must not be believed."""
    m = members()
    data = bytearray(
        archive(
            [*list(m.items())[:1], ("payload-0.so", bytes(1 << 20)), ("maps-0.json", m["maps-0.json"])],
            zipfile.ZIP_DEFLATED,
        )
    )
    at = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)  # the second entry
    struct.pack_into("<I", data, at + 24, 16)
    rejected(bytes(data), "some.hotpatch")


# ---- damage: what is in it ---------------------------------------------------------------------------------------


def test_payload_and_maps_must_have_their_hashes():
    m = members()
    rejected(archive(list({**m, "payload-0.so": b"\x7fELF pAyload"}.items())), "sha256")
    rejected(archive(list({**m, "payload-0.so": b""}.items())), "size or sha256")
    rejected(
        archive(list({**m, "maps-0.json": m["maps-0.json"].replace(b'"f"', b'"e"')}.items())), "maps-0.json.*sha256"
    )


def with_manifest(change: Any) -> bytes:
    m = members()
    manifest = json.loads(m["manifest.json"])
    change(manifest)
    return archive(list({**m, "manifest.json": json.dumps(manifest).encode()}.items()))


def image(manifest: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = manifest["images"][0]
    return first


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda m: m.update(format=2), "format 2; this version reads format 1"),
        (lambda m: m.update(format=True), "format"),
        (lambda m: m.pop("format"), "required"),
        (lambda m: m.update(extra=1), "additionalProperties"),
        (lambda m: m.update(created="yesterday"), "created"),
        (lambda m: m.update(created="2026-11-22T10:00:00Z\n"), "created"),
        (lambda m: m.update(images=[]), "images"),
        (lambda m: m.update(images=m["images"] * 2), "holds 1|speaks of 2"),
        (lambda m: m.update(tool=""), "tool"),
        (lambda m: image(m).update(build_id="xyz"), "build_id"),
        (lambda m: image(m).update(build_id=""), "build_id"),
        (lambda m: image(m).update(kind="core"), "kind"),
        (lambda m: image(m).update(generation=0), "generation"),
        (lambda m: image(m).update(generation=1.5), "generation"),
        (lambda m: image(m).update(generation=True), "generation"),
        (lambda m: image(m).update(id=NO_ID), "its id does not belong"),
        (lambda m: image(m).update(generation=2), "cannot follow"),
        (lambda m: image(m).update(parent="1" * 64), "cannot follow"),
        (lambda m: image(m).update(build_id="cd"), "its id"),
        (lambda m: image(m).update(arena=[0x10000]), "arena"),
        (lambda m: image(m).update(arena=[0x10001, 0x12000]), "no range of pages"),
        (lambda m: image(m).update(arena=[0x12000, 0x10000]), "no range of pages"),
        (lambda m: image(m).update(arena=[0x11000, 0x12000]), "f at 0x10000, 32 bytes, lies outside"),
        (lambda m: image(m)["added"][0].update(slot=8), "g at 0x8"),
        (lambda m: image(m)["changed"][0].update(size=1 << 63), "outside"),
        (lambda m: image(m)["changed"][0].update(body=-1), "minimum"),
        (lambda m: image(m)["changed"][0].update(slot=1 << 64), "maximum"),
        (lambda m: image(m)["changed"][0].update(name="ghost"), "ghost of a.o is in none of its maps"),
        (lambda m: image(m)["changed"][0].update(object="b.o"), "f of b.o is in none"),
        (lambda m: image(m)["changed"].append(image(m)["changed"][0]), "a name occurs twice"),
        (lambda m: image(m)["data"]["updated"][0].update(name="ghost"), "ghost is in none"),
        (lambda m: image(m)["data"]["bound"].append(image(m)["data"]["bound"][0]), "a name occurs twice"),
        (lambda m: image(m)["data"].pop("bound"), "required"),
        (lambda m: image(m)["payload"].update(file="../../x"), "file"),
        (lambda m: image(m)["payload"].update(file="payload-1.so"), "payload-1.so, which the archive does not hold"),
        (lambda m: image(m)["payload"].update(size=3), "size or sha256"),
        (lambda m: image(m).update(notes=[1]), "notes"),
    ],
)
def test_a_manifest_that_does_not_hold_together(change, said):
    rejected(with_manifest(change), said)


@pytest.mark.parametrize(
    "text, said",
    [
        (b"", "some.hotpatch"),
        (b"[1, 2", "some.hotpatch"),
        (b"\xff\xfe{}", "some.hotpatch"),
        (b"null", "object"),
        (b"NaN", "NaN"),
        (b'{"format": 1, "format": 1}', "twice"),
        (b"[" * 100000, "some.hotpatch"),
        (b'{"format": ' + b"9" * 5000 + b"}", "some.hotpatch"),
    ],
)
def test_a_manifest_that_is_no_json(text, said):
    rejected(archive(list({**members(), "manifest.json": text}.items())), said)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: 5,
        lambda m: [5],
        lambda m: [{"format": 99}],
        lambda m: [{**m[0], "object": ["a.o"]}],
        lambda m: [{**m[0], "types": {"a": 1}}],
        lambda m: [{**m[0], "functions": [{**m[0]["functions"][0], "refs": 7}]}],
        lambda m: [{**m[0], "surplus": 1}],
        lambda m: [m[0], m[0]],
    ],
)
def test_maps_of_the_wrong_kind(change):
    m = members()
    maps = json.dumps(change(json.loads(m["maps-0.json"]))).encode()
    manifest = json.loads(m["manifest.json"])
    image(manifest)["maps"]["sha256"] = bundle._sha256(maps)
    rejected(
        archive(
            [
                ("manifest.json", json.dumps(manifest).encode()),
                ("payload-0.so", m["payload-0.so"]),
                ("maps-0.json", maps),
            ]
        ),
        "some.hotpatch",
    )


# ---- properties --------------------------------------------------------------------------------------------------


def survives(data: bytes) -> None:
    """Rejected as Damaged, or read as exactly the good bundle (a bit of a date in the archive's directory changed)."""
    try:
        found = decode(data)
    except Damaged:
        return
    assert found == GOOD


@settings(max_examples=400)
@given(st.integers(0, len(BYTES) - 1), st.integers(0, 255))
def test_no_changed_byte_makes_another_bundle(at, value):
    survives(BYTES[:at] + bytes([value]) + BYTES[at + 1 :])


@settings(max_examples=200)
@given(st.integers(0, len(BYTES)), st.integers(0, len(BYTES)), st.binary(max_size=12))
def test_no_cut_and_no_insertion_makes_another_bundle(start, end, between):
    survives(BYTES[:start] + between + BYTES[end:])


@given(st.binary(max_size=300))
def test_noise_is_damage(noise):
    with pytest.raises(Damaged):
        decode(noise)
    survives(b"PK\3\4" + noise)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 65) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [at, *(p for key, value in inner for p in places(value, (*at, key)))]


@settings(max_examples=300)
@given(st.data())
def test_our_reading_of_the_schema_is_that_of_the_jsonschema_library(data):
    jsonschema = pytest.importorskip("jsonschema", reason="install the test extra")
    rules = schema.load(bundle.SCHEMA)
    document = json.loads(json.dumps(GOOD.manifest))
    at = data.draw(st.sampled_from(places(document)[1:]))
    holder = document
    for key in at[:-1]:
        holder = holder[key]
    if data.draw(st.booleans()) and isinstance(holder, dict):
        del holder[at[-1]]
    else:
        holder[at[-1]] = data.draw(_json)
    theirs = not list(jsonschema.Draft202012Validator(rules).iter_errors(document))
    ours = not list(schema.problems(document, rules))
    assert ours == theirs or ours < theirs and _is_stricter(document, rules)


def _is_stricter(document: Any, rules: Any) -> bool:
    """Where we take less on purpose: 1.0 is no integer for us."""
    return any("not of type integer" in p or "$.format" in p for p in schema.problems(document, rules))


def test_the_schema_itself_is_sound_and_takes_a_good_manifest():
    jsonschema = pytest.importorskip("jsonschema", reason="install the test extra")
    rules = schema.load(bundle.SCHEMA)
    jsonschema.Draft202012Validator.check_schema(rules)
    jsonschema.Draft202012Validator(rules).validate(GOOD.manifest)
    assert list(schema.problems(GOOD.manifest, rules)) == []


def test_a_keyword_that_is_not_known_is_not_passed_over():
    with pytest.raises(NotImplementedError, match="maxLength"):
        list(schema.problems("x", {"maxLength": 0}))


def test_the_schema_travels_with_the_package():
    assert (Path(schema.__file__).parent / bundle.SCHEMA).is_file()
