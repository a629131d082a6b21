"""The object map as bytes: there and back, several after one another, damaged, and of other versions."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotreload_tool import objectmap
from hotreload_tool.objectmap import DataEntry, FunctionEntry, MapError, ObjectMap, SpecialEntry, unpack_all

TEXT = st.text(max_size=20)
NAMES = st.lists(TEXT, max_size=3)
COUNTS = st.integers(0, 2**63)
MAPS = st.builds(
    ObjectMap,
    object=TEXT,
    source=st.none() | TEXT,
    compiler=NAMES,
    typed=st.booleans(),
    headers=st.none() | TEXT,
    functions=st.lists(
        st.builds(
            FunctionEntry,
            name=TEXT,
            symbol=TEXT,
            binding=TEXT,
            size=COUNTS,
            digest=TEXT,
            refs=NAMES,
            comdat=st.none() | TEXT,
            signature=st.none() | TEXT,
            direct=NAMES,
        ),
        max_size=4,
    ),
    data=st.lists(
        st.builds(
            DataEntry,
            name=TEXT,
            symbol=TEXT,
            binding=TEXT,
            kind=TEXT,
            size=COUNTS,
            align=COUNTS,
            extent=COUNTS,
            digest=TEXT,
            refs=NAMES,
            static_local=st.none() | TEXT,
            type=st.none() | TEXT,
        ),
        max_size=4,
    ),
    types=st.dictionaries(TEXT, TEXT, max_size=3),
    layouts=st.dictionaries(TEXT, TEXT, max_size=3),
    virtuals=st.dictionaries(TEXT, TEXT, max_size=3),
    imports=NAMES,
    special=st.lists(st.builds(SpecialEntry, section=TEXT, size=COUNTS, digest=TEXT), max_size=2),
)


def a_map(name: str = "build/a.o") -> ObjectMap:
    return ObjectMap(
        name,
        functions=[FunctionEntry("f", "f", "global", 10, "0" * 32, ["g", "n~build/a.o"], signature="int (int)")],
        data=[DataEntry("n~build/a.o", "n", "local", "bss", 4, 4, 36, "1" * 32, type="int")],
        types={"0123456789abcdef": "struct foo"},
        imports=["printf"],
        special=[SpecialEntry(".init_array", 8, "2" * 32)],
    )


def record(raw: bytes, magic: bytes = b"HRMAP\0\0\1", stored: int | None = None, claimed: int | None = None) -> bytes:
    """A record around any JSON."""
    packed = zlib.compress(raw, 1)
    blob = (
        struct.pack(
            "<8sQQ", magic, len(packed) if stored is None else stored, len(raw) if claimed is None else claimed
        )
        + packed
    )
    return blob + bytes(-len(blob) % 8)


def with_fields(**fields: Any) -> bytes:
    return record(json.dumps({**a_map().to_json(), **fields}).encode())


@given(MAPS)
def test_there_and_back(described: ObjectMap) -> None:
    blob = described.pack()
    assert len(blob) % 8 == 0 and list(unpack_all(blob)) == [described] and described.pack() == blob
    assert ObjectMap.from_json(json.loads(json.dumps(described.to_json()))) == described


@given(st.lists(st.tuples(MAPS, st.integers(0, 5)), max_size=4), st.integers(0, 3))
def test_linked_maps_with_padding_between(described: list[tuple[ObjectMap, int]], before: int) -> None:
    """A linker aligns each input section, and pads with zeros."""
    blob = bytes(8 * before) + b"".join(m.pack() + bytes(8 * pad) for m, pad in described)
    assert list(unpack_all(blob)) == [m for m, _ in described]


def test_symbols_that_are_not_utf8() -> None:
    odd = ObjectMap(b"\xff.o".decode(errors="surrogateescape"))
    assert list(unpack_all(odd.pack())) == [odd]


def test_nothing_holds_no_maps() -> None:
    assert list(unpack_all(b"")) == [] == list(unpack_all(bytes(7))) == list(unpack_all(bytes(64)))


def test_the_json_is_a_copy() -> None:
    described = a_map()
    described.to_json()["functions"][0]["name"] = "other"
    assert described == a_map()


@given(st.integers(1, len(a_map().pack()) - 1))
def test_truncation_is_an_error(end: int) -> None:
    blob = a_map().pack()
    whole = blob.rstrip(b"\0")
    if end >= len(whole):
        return  # only padding is gone
    with pytest.raises(MapError, match="byte 0"):
        list(unpack_all(blob[:end]))


def test_truncation_of_a_later_map_names_its_place() -> None:
    first = a_map().pack()
    maps = unpack_all(first + a_map("b.o").pack()[:40])
    assert next(maps) == a_map()
    with pytest.raises(MapError, match=f"byte {len(first)} "):
        next(maps)


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        (record(b"{}", magic=b"HRMAP\0\0\2"), "another version"),
        (b"\x7fELF" + bytes(40), "no object map at byte 0"),
        (a_map().pack() + b"rubbish!" + bytes(40), "no object map at byte"),
        (record(b"{}", stored=1 << 40), "claims 1099511627776 bytes"),
        (record(b"{}", claimed=objectmap.MAX_RAW + 1), "unpacked"),
        (record(b"{}", claimed=1), "does not unpack to the 1 bytes"),
        (record(b"{}", claimed=3), "does not unpack to the 3 bytes"),
        (record(b"[" * 100_000), "damaged"),
        (record(b"\xff\xfe"), "damaged"),
        (record(b"{"), "damaged"),
        (record(b"[]"), "format"),
        (record(b"{}"), "format None"),
        (with_fields(format=2), "of format 2; this version reads format 1"),
        (with_fields(colour="red"), "colour"),
        (with_fields(functions=[{"name": "f"}]), "missing"),
        (with_fields(functions=["f"]), "field"),
        (with_fields(functions=3), "field"),
        (record(json.dumps({"format": 1, "object": "x"}).encode()), "functions"),
    ],
)
def test_damage_is_named(blob: bytes, why: str) -> None:
    with pytest.raises(MapError, match=why):
        list(unpack_all(blob))


def test_a_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the size it claims, no more than that (and a byte to see that there is more) is unpacked."""
    real, produced = zlib.decompressobj, list[int]()

    class Watched:
        def __init__(self) -> None:
            self._engine = real()

        def decompress(self, data: bytes, bound: int) -> bytes:
            out = self._engine.decompress(data, bound)
            produced.append(len(out))
            return out

        def __getattr__(self, name: str) -> Any:
            return getattr(self._engine, name)

    bomb = zlib.compress(b" " * (1 << 26) + b"{}")
    monkeypatch.setattr(zlib, "decompressobj", Watched)
    for claimed in (0, 1, 1000):
        blob = struct.pack("<8sQQ", b"HRMAP\0\0\1", len(bomb), claimed) + bomb
        with pytest.raises(MapError, match="does not unpack"):
            list(unpack_all(blob + bytes(-len(blob) % 8)))
    assert produced == [1, 2, 1001]


@given(st.lists(st.tuples(st.integers(0, len(a_map().pack()) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutations_give_the_documented_error_or_a_map(changes: list[tuple[int, int]]) -> None:
    blob = bytearray(a_map().pack())
    for at, value in changes:
        blob[at] = value
    try:
        assert all(isinstance(m, ObjectMap) for m in unpack_all(bytes(blob)))
    except MapError as e:
        assert str(e)
