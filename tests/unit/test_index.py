"""index.py: what is looked up is what reading the whole image finds."""
from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mapmaker import fn, image, objmap, static, var

from hotreload_tool import difference, index
from hotreload_tool import live as live_module
from hotreload_tool.index import BadIndex, Index
from hotreload_tool.live import ImageSymbol, LiveState, from_image
from hotreload_tool.objectmap import ObjectMap
from hotreload_tool.plan import make_plan
from indexed import indexed

OBJECTS = ("a.o", "b.o", "c.o", "d.o")
TYPES = {"1" * 16: "struct A", "2" * 16: "struct B", "3" * 16: "struct B"}
EXTRA = (ImageSymbol("malloc", 0x20, 8, "FUNC", "GLOBAL", "DEFAULT", ".text"),
         ImageSymbol("errno", 0x30, 4, "TLS", "GLOBAL", "DEFAULT", ".tbss"),
         ImageSymbol("hr_tls_reserve", 0x40, 64, "TLS", "GLOBAL", "DEFAULT", ".tbss"),
         ImageSymbol("memcpy", 0x50, 8, "IFUNC", "GLOBAL", "DEFAULT", ".text"),
         ImageSymbol("_ZTV1X", 0x60, 8, "OBJECT", "WEAK", "DEFAULT", ".data.rel.ro"))
_digests = st.sampled_from("123")


@st.composite
def maps(draw: Any) -> list[ObjectMap]:
    """Objects that share COMDAT and weak functions, types, classes and imports."""
    found = []
    for obj in OBJECTS[:draw(st.integers(1, 4))]:
        shared = draw(st.lists(st.sampled_from(["c1", "c2", "c3", "w1"]), unique=True))
        refs = draw(st.lists(st.sampled_from(["c1", "c2", "malloc", "errno", f"n.0~{obj}", "f_a.o", "v_b.o"]), unique=True))
        entries = [fn(name, draw(_digests), binding="weak", comdat=name if name[0] == "c" else None) for name in shared]
        entries += [fn(f"f_{obj}", draw(_digests), refs), fn(f"g~{obj}", draw(_digests), size=draw(st.integers(1, 32)))]
        entries += [var(f"v_{obj}", draw(_digests)), var(f"k_{obj}", draw(_digests), "rodata"), static("n.0", obj)]
        if draw(st.booleans()):
            entries.append(var(f"t_{obj}", kind="tbss"))
        types = {t: TYPES[t] for t in draw(st.lists(st.sampled_from(sorted(TYPES)), unique=True))}
        virtuals = draw(st.sampled_from([{}, {"struct A": "2 f"}, {"struct A": "2 f\n3 g"}]))
        found.append(objmap(obj, *entries, types=types, layouts={t: t for t in types}, virtuals=virtuals, imports=sorted(refs)))
    return found


def names(live: LiveState) -> Iterator[str]:
    yield from ("nowhere", "", *live.functions, *live.data, *live.symbols, *live.tls_symbols, *live.definitions)


@pytest.fixture(params=[False, True], ids=["few", "many"], autouse=True)
def _many_definers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who defines a name is read at once, or piece by piece as if they were many."""
    if request.param:
        monkeypatch.setattr(index, "_FEW", 0)
        monkeypatch.setattr(index, "_CHUNK", 1)


def hypothetical(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(found=maps(), without=st.sets(st.sampled_from(["c1", "w1", "f_a.o", "v_a.o"])),
       heads=st.sets(st.sampled_from(["c1", "w1", "f_b.o", "g~a.o"])))
@hypothetical(15)
def test_every_lookup_gives_what_reading_gives(tmp_path_factory: pytest.TempPathFactory, found: list[ObjectMap],
                                               without: set[str], heads: set[str]) -> None:
    facts = image(*found, extra=EXTRA, without=without, heads=heads)
    whole, live = from_image(facts), indexed(tmp_path_factory.mktemp("index"), facts)
    for name in names(whole):
        for what in ("functions", "data", "symbols", "tls_symbols", "definitions"):
            mine, theirs = getattr(live, what).get(name), getattr(whole, what).get(name)
            assert (tuple(map(tuple, mine)) if what == "definitions" and mine else mine) == theirs, (what, name)
    assert len(live.order) == len(whole.order) and live.order == whole.order
    assert {**live.maps} == whole.maps and live.ifuncs == whole.ifuncs
    assert {t: live.types.get(t) for t in TYPES} == {t: whole.types.get(t) for t in TYPES}
    assert all(live.may_know_type(t) == whole.may_know_type(t) for t in ("struct A", "struct B", "struct C"))
    assert all(live.virtuals_of(c) == whole.virtuals_of(c) for c in ("struct A", "struct B"))
    assert all(live.linked_digests(n) == whole.linked_digests(n) for n in names(whole))
    assert live.symbols_between(0x2000, 0x8100) == sorted(set(whole.symbols_between(0x2000, 0x8100)))
    assert (live.tls_reserve(), live.foreign_vtables()) == (whole.tls_reserve(), whole.foreign_vtables())
    importing = {o for o, m in whole.maps.items() if "malloc" in m.imports}
    assert importing <= set(live.importers(["malloc"])) <= set(whole.importers(["malloc"]))


@given(found=maps(), edited=maps())
@hypothetical(15)
def test_plans_are_the_same(tmp_path_factory: pytest.TempPathFactory, found: list[ObjectMap], edited: list[ObjectMap]) -> None:
    facts = image(*found, extra=EXTRA)
    live, whole = indexed(tmp_path_factory.mktemp("index"), facts, refusals=True), from_image(facts)
    news: dict[str, ObjectMap | None] = {m.object: m for m in edited}
    news.update((o, None) for o in whole.maps if o not in news)
    wanted = make_plan(whole, news)
    assert make_plan(live, news) == wanted
    unchanged = {o for o, m in news.items() if m is not None and live.unchanged(o, index.digest(m.pack().rstrip(b"\0")))}
    assert make_plan(live, {o: m for o, m in news.items() if o not in unchanged}) == wanted


@given(found=maps(), steps=st.lists(maps(), min_size=1, max_size=3), left=st.sets(st.sampled_from(OBJECTS)))
@hypothetical(15)
def test_who_defines_a_name_after_generations(tmp_path_factory: pytest.TempPathFactory, found: list[ObjectMap],
                                              steps: list[list[ObjectMap]], left: set[str]) -> None:
    facts = image(*found, extra=EXTRA)
    live, whole = indexed(tmp_path_factory.mktemp("index"), facts, refusals=True), from_image(facts)
    for step in steps:
        news = {m.object: m for m in step if m.object not in left}
        for state in (live, whole):
            live_module._replace_maps(state, news, state.redefined(news))
        assert [*live.order] == [*whole.order] and len(live.order) == len(whole.order) and live.order == whole.order
        for name in names(whole):
            mine, theirs = live.definitions.get(name, ()), whole.definitions.get(name, ())
            assert mine == theirs and len(mine) == len(theirs) and bool(mine) == bool(theirs), name
            assert difference.prevailing(mine) == difference.prevailing(theirs)
            assert all(d in mine for d in theirs)


def test_a_patch_looks_at_no_more_of_a_larger_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All objects have one inline function. One of the units is edited."""
    looked_at: list[int] = []
    made = index._Definition.__init__
    monkeypatch.setattr(index._Definition, "__init__", lambda self, *args: (looked_at.append(1), made(self, *args))[1])
    monkeypatch.setattr(index, "_FEW", 4)
    found = []
    for count in (8, 800):
        (folder := tmp_path / str(count)).mkdir()
        units = [objmap(f"{n:03}.o", fn(f"f{n}", "1", ["inline"]), fn("inline", binding="weak", comdat="inline"))
                 for n in range(count)]
        live = indexed(folder, image(*units))
        looked_at.clear()
        edited = objmap("001.o", fn("f1", "2", ["inline"]), fn("inline", binding="weak", comdat="inline"))
        assert [c.name for c in make_plan(live, {"001.o": edited}).changed] == ["f1"]
        assert live.index is not None and all(m.object in live.maps for m in units)
        assert len(live.index._known_maps) <= 2, "whether an object has a map is known without reading it"
        found.append(len(looked_at))
        assert live.index.map("001.o") == units[1] and live.index.objects() == [m.object for m in units]
        assert len(str(live.index.header)) < 900
    assert found[0] == found[1]


def test_fragments_are_found_by_name_and_address(tmp_path: Path) -> None:
    opened = indexed(tmp_path, image(objmap("a.o", fn("f")))).index
    assert opened is not None
    assert (opened.fragments("g"), opened.fragments("h"), opened.fragments("f")) == ([(0x1040, 8)], [(0x1060, 16)], [])
    assert [opened.fragment_at(a) for a in (0x103F, 0x1040, 0x1047, 0x1048, 0x1060, 0x1070)] == \
        [None, (0x1040, 8), (0x1040, 8), None, (0x1060, 16), None]


def test_no_byte_can_change_unnoticed(tmp_path: Path) -> None:
    """Whatever is wrong in the file, an answer is right, or there is none."""
    facts = image(objmap("a.o", fn("f"), var("v"), imports=["malloc"]), objmap("b.o", fn("g")), extra=EXTRA)
    live, whole = indexed(tmp_path, facts), from_image(facts)
    good = (tmp_path / "index").read_bytes()
    del live
    for at in range(0, len(good), 3):
        (tmp_path / "index").write_bytes(good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1:])
        try:
            found = index.live_state(Index(tmp_path / "index", tmp_path / "image", facts.build_id), lambda: facts)
            assert [found.functions.get(n) for n in ("f", "g", "h")] == [whole.functions.get(n) for n in ("f", "g", "h")]
            assert found.data.get("v") == whole.data.get("v")
        except BadIndex:
            continue


def test_a_map_that_was_changed_in_the_image_is_not_believed(tmp_path: Path) -> None:
    facts = image(objmap("a.o", fn("f")))
    live = indexed(tmp_path, facts)
    path = tmp_path / "image"
    packed = facts.maps[0].pack()
    path.write_bytes(path.read_bytes().replace(packed, struct.pack("<24s", packed[:24]) + packed[24:-9] + bytes(9)))
    with pytest.raises(BadIndex, match="not what was linked"):
        live.functions.get("f")


def test_an_index_that_is_cut_short_while_it_is_open_is_damaged(tmp_path: Path) -> None:
    live = indexed(tmp_path, image(objmap("a.o", fn("f"))))
    (tmp_path / "index").write_bytes(b"")
    with pytest.raises(BadIndex, match="cut short"):
        live.functions.get("f")


def test_an_object_of_which_no_name_can_be_kept_has_no_index(tmp_path: Path) -> None:
    with pytest.raises(BadIndex, match="zero byte"):
        indexed(tmp_path, image(objmap("a\0.o", fn("f"))))


def test_heads_are_kept(tmp_path: Path) -> None:
    live = indexed(tmp_path, image(objmap("a.o", fn("f", "1", size=16), fn("g", "2", size=16)), heads=["f"]))
    f, g = live.functions["f"], live.functions["g"]
    assert f.body is not None and (f.entry, f.lead, f.head, f.size) == (f.body - 2, 2, f.body - 2, 14)
    assert (g.lead, g.head, g.size) == (0, None, 16)
