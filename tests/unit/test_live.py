"""live.py: what lives where, after an image was loaded and generations were applied."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from mapmaker import ARENA, BUILD_ID, digest, fn, image, objmap, static, var

from hotreload_tool.errors import Damaged, NotForImage, Refused
from hotreload_tool.live import (
    NO_ID,
    ImageFacts,
    ImageSymbol,
    LiveState,
    apply_generation,
    apply_generations,
    from_image,
)
from hotreload_tool.objectmap import ObjectMap


def manifest(live: LiveState, **fields: Any) -> dict[str, Any]:
    generation = live.generation + 1
    entry = {
        "build_id": live.build_id,
        "generation": generation,
        "id": f"{generation:064x}",
        "parent": live.id,
        "arena": [live.arena_used_end, live.arena_used_end + 0x1000],
        "changed": [],
        "added": [],
        "removed": [],
    }
    data = {"added": [], "updated": [], "bound": []}
    for key in data:
        data[key] = fields.pop(f"data_{key}", [])
    return {**entry, **fields, "data": data}


def changed(live: LiveState, name: str, obj: str, body: int = 0x100100, size: int = 32) -> dict[str, Any]:
    f = live.functions[name]
    return {
        "name": name,
        "object": obj,
        "slot": f.slot,
        "old_body": f.body,
        "old_size": f.size,
        "body": body,
        "size": size,
    }


def bound(live: LiveState, **names: str) -> list[dict[str, Any]]:
    """new=old, `n0` for n.0~a.o."""
    full = {k: f"{k[0]}.{k[1]}~a.o" for k in (*names, *names.values())}
    return [
        {"name": full[new], "was": full[old], "address": live.data[full[old]].address, "extent": 64}
        for new, old in names.items()
    ]


# ---- the image as built ------------------------------------------------------------------------------------------


def test_functions_and_data_of_an_image():
    live = from_image(
        image(
            objmap(
                "a.o",
                fn("f", signature="void (void)"),
                fn("g~a.o"),
                var("v"),
                var("t", kind="tbss"),
                types={"1" * 16: "S"},
            )
        )
    )
    f, g = live.functions["f"], live.functions["g~a.o"]
    assert (f.entry, f.slot, f.body, f.size, f.digest, f.signature, f.generation) == (
        0x1000,
        0x6000,
        0x2000,
        16,
        digest("1"),
        "void (void)",
        0,
    )
    assert (g.object, g.entry, g.slot, g.body) == ("a.o", 0x1040, 0x6008, 0x2040) and g.patchable
    assert (live.data["v"].address, live.data["v"].extent, live.data["t"].address) == (0x8000 + 128, 64, 24)
    assert (live.generation, live.id, live.arena_used_end, live.kind) == (0, NO_ID, ARENA[0], "pie")
    assert live.types == {"1" * 16: {"a.o"}}


def test_a_function_without_slot_is_not_patchable():
    live = from_image(image(objmap("a.o", fn("f", binding="weak", comdat="f")), without=["f.hr_slot"]))
    assert live.functions["f"].slot is None and not live.functions["f"].patchable


def test_what_the_linker_left_out_does_not_live():
    live = from_image(image(objmap("a.o", fn("f"), var("v")), without=["f", "f.hr_slot", "v"]))
    assert live.functions == {} and live.data == {} and "f" in live.definitions


def test_a_slot_without_content_is_damage():
    facts = image(objmap("a.o", fn("f")))
    with pytest.raises(Damaged, match="f.hr_slot"):
        from_image(replace(facts, slots={}))


def test_two_maps_of_one_object_are_damage():
    with pytest.raises(Damaged, match="a.o"):
        from_image(image(objmap("a.o"), objmap("a.o")))


def test_the_strong_definition_lives_else_the_first_in_link_order():
    weak = {"binding": "weak", "comdat": "f"}
    a, b, c = objmap("z.o", fn("f", "a", **weak)), objmap("b.o", fn("f", "b", **weak)), objmap("c.o", fn("f", "c"))
    assert from_image(image(a, b)).functions["f"].object == "z.o"
    assert from_image(image(a, b, c)).functions["f"].object == "c.o"


def symbol(
    name: str,
    address: int,
    binding: str = "GLOBAL",
    visibility: str = "DEFAULT",
    type: str = "FUNC",
    section: str = ".text",
) -> ImageSymbol:
    return ImageSymbol(name, address, 8, type, binding, visibility, section)


def test_symbols_of_uninstrumented_parts():
    live = from_image(
        image(
            objmap("a.o", fn("f")),
            extra=[
                symbol("lib", 0x10),
                symbol("weak", 0x20, "WEAK"),
                symbol("hidden", 0x30, "LOCAL", "HIDDEN"),
                symbol("twice", 0x40, "LOCAL", "HIDDEN"),
                symbol("twice", 0x50, "LOCAL", "HIDDEN"),
                symbol("plain", 0x60, "LOCAL"),
                symbol("number", 0x70, section="*ABS*"),
                symbol("chosen", 0x80, type="IFUNC"),
                symbol("errno", 0x8, type="TLS"),
                symbol("hidden_too", 0x90),
                symbol("hidden_too", 0xA0, "LOCAL", "HIDDEN"),
                symbol("hotreload_pending", 0xB0, "LOCAL"),          # as ld.bfd leaves the runtime's own
                symbol("hotreload_hook", 0xC0, "LOCAL", type="OBJECT"),
            ],
        )
    )
    assert live.symbols == {"lib": 0x10, "weak": 0x20, "hidden": 0x30, "hidden_too": 0x90, "hotreload_pending": 0xB0}
    assert live.ifuncs == {"chosen"} and live.tls_symbols == {"errno": 8}


def test_names_that_a_version_script_made_local():
    """The code of a file-local f~b.o is called f too, and is not meant."""
    facts = image(objmap("a.o", fn("f")), objmap("b.o", fn("f~b.o")))
    made_local = [s._replace(binding="LOCAL") for s in facts.symbols]
    assert from_image(replace(facts, symbols=made_local)).functions["f"].entry == 0x1000


def all_local(facts, *others):
    """As mold makes the symbols of a program, with `others` of parts that are not instrumented."""
    return replace(facts, symbols=[*others, *(s._replace(binding="LOCAL") for s in facts.symbols)])


def test_a_local_function_elsewhere_has_the_name_of_one_that_was_made_local():
    facts = image(objmap("a.o", fn("f")), objmap("b.o", fn("g")))
    body = next(s for s in facts.symbols if s.name == "f.hr_body")
    stubs = [s._replace(address=body.address + body.size + 7) if s.name == "f" else s for s in facts.symbols]
    facts = all_local(replace(facts, symbols=stubs), symbol("f", 0x900, "LOCAL"), symbol("f", 0x5000, "LOCAL"))
    assert from_image(facts).functions["f"].entry == body.address + body.size + 7


def test_a_local_variable_elsewhere_has_the_name_of_one_that_was_made_local():
    """A file-local variable of an instrumented object is known by its unique name, one of another object is not."""
    facts = image(objmap("a.o", var("v")), objmap("b.o", var("v~b.o", binding="local")))
    twin = next(s for s in facts.symbols if s.name == "v~b.o")
    found = from_image(all_local(facts, twin._replace(name="v", visibility="DEFAULT")))
    assert found.data["v"].address != found.data["v~b.o"].address == twin.address
    with pytest.raises(Refused, match="v: .* 2 variables of this name"):
        from_image(all_local(facts, symbol("v", 0x900, "LOCAL", type="OBJECT", section=".data")))


def test_facts_survive_json():
    facts = image(
        objmap("a.o", fn("f"), var("v"), static("n.0", "a.o"), types={"1" * 16: "S"}),
        extra=[symbol("x\udc80", 1)],
        needed=["libc.so.6"],
        runpath=["$ORIGIN"],
        exported=["f"],
    )
    assert ImageFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


# ---- generations -------------------------------------------------------------------------------------------------


@pytest.fixture
def live() -> LiveState:
    return from_image(
        image(
            objmap(
                "a.o", fn("f", refs=["n.0~a.o"]), fn("g~a.o"), var("v"), static("n.0", "a.o"), types={"1" * 16: "S"}
            ),
            objmap("b.o", fn("h"), types={"1" * 16: "S"}),
        )
    )


def test_a_changed_function_keeps_entry_and_slot(live):
    new = objmap("a.o", fn("f", "2", signature="int (void)"), fn("g~a.o"), var("v"))
    after = apply_generation(live, manifest(live, changed=[changed(live, "f", "a.o")]), [new])
    f, before = after.functions["f"], live.functions["f"]
    assert (f.entry, f.slot, f.body, f.size, f.digest, f.generation) == (
        before.entry,
        before.slot,
        0x100100,
        32,
        digest("2"),
        1,
    )
    assert f.signature == "int (void)"
    assert after.functions["g~a.o"] == live.functions["g~a.o"]
    assert (after.generation, after.id, after.arena_used_end) == (1, f"{1:064x}", ARENA[0] + 0x1000)
    assert after.types == {"1" * 16: {"b.o"}} and after.maps["a.o"] is new


def test_the_state_before_is_left_alone(live):
    before = live.copy()
    apply_generation(live, manifest(live, changed=[changed(live, "f", "a.o")]), [objmap("a.o", fn("f", "2"))])
    assert live == before


def test_added_functions_and_data(live):
    new = objmap("c.o", fn("new", "9"), var("fresh", "7"))
    added = {"name": "new", "object": "c.o", "entry": 0x100000, "slot": 0x100800, "body": 0x100040, "size": 8}
    fresh = {"name": "fresh", "object": "c.o", "address": 0x100900, "size": 4, "extent": 16}
    after = apply_generation(live, manifest(live, added=[added], data_added=[fresh]), [new])
    f, d = after.functions["new"], after.data["fresh"]
    assert (f.object, f.entry, f.slot, f.body, f.generation, f.digest) == (
        "c.o",
        0x100000,
        0x100800,
        0x100040,
        1,
        digest("9"),
    )
    assert (d.object, d.address, d.extent, d.generation, d.digest) == ("c.o", 0x100900, 16, 1, digest("7"))
    assert after.order["c.o"] == 2


def test_static_locals_swap_names(live):
    """f's n.0 becomes n.1, and a new n.0 comes; then both swap."""
    n = live.data["n.0~a.o"].address
    one = objmap("a.o", static("n.0", "a.o"), static("n.1", "a.o"))
    added = {"name": "n.0~a.o", "object": "a.o", "address": 0x100900, "size": 4, "extent": 4}
    after = apply_generation(live, manifest(live, data_added=[added], data_bound=bound(live, n1="n0")), [one])
    assert (after.data["n.1~a.o"].address, after.data["n.0~a.o"].address) == (n, 0x100900)
    assert after.data["n.1~a.o"].name == "n.1~a.o" and after.data["n.1~a.o"].generation == 0
    swapped = apply_generation(after, manifest(after, data_bound=bound(after, n0="n1", n1="n0")), [one])
    assert (swapped.data["n.0~a.o"].address, swapped.data["n.1~a.o"].address) == (n, 0x100900)


def test_a_static_local_that_is_gone_frees_its_number(live):
    after = apply_generation(live, manifest(live), [objmap("a.o", fn("f"))])
    assert "n.0~a.o" not in after.data


def test_removed_functions_and_data_stay_where_they_are(live):
    after = apply_generation(live, manifest(live, removed=[{"name": "f", "object": "a.o"}]), [objmap("a.o")])
    assert after.functions["f"] == live.functions["f"] and "f" not in after.definitions
    assert after.data["v"].retired == 1 and after.data["v"].address == live.data["v"].address
    back = {"name": "v", "was": "v", "address": after.data["v"].address, "extent": 64}
    again = apply_generation(after, manifest(after, data_bound=[back]), [objmap("a.o", var("v"))])
    assert again.data["v"] == live.data["v"]


def test_an_updated_constant_has_its_new_digest():
    live = from_image(image(objmap("a.o", var("k", "1", "rodata"))))
    record = {"name": "k", "address": live.data["k"].address, "size": 4}
    after = apply_generation(live, manifest(live, data_updated=[record]), [objmap("a.o", var("k", "2", "rodata"))])
    assert after.data["k"] == replace(live.data["k"], digest=digest("2"))


def test_data_that_moved_to_another_object(live):
    record = {"name": "v", "was": "v", "address": live.data["v"].address, "extent": 64}
    after = apply_generation(live, manifest(live, data_bound=[record]), [objmap("a.o"), objmap("b.o", var("v"))])
    assert (after.data["v"].object, after.data["v"].retired) == ("b.o", None)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"build_id": "00"}, "the bundle is for build-id 00"),
        ({"generation": 2}, "generation 2"),
        ({"parent": "1" * 64}, "order"),
    ],
)
def test_what_does_not_follow_is_refused(live, fields, said):
    with pytest.raises(NotForImage, match=said):
        apply_generation(live, {**manifest(live), **fields}, [])


def test_a_generation_that_its_maps_don_t_explain_is_damage(live):
    with pytest.raises(Damaged, match="no object map says that a.o defines f"):
        apply_generation(live, manifest(live, changed=[changed(live, "f", "a.o")]), [objmap("a.o")])
    ghost = {"name": "ghost", "object": "a.o", "slot": 0, "old_body": 0, "old_size": 0, "body": 0x100000, "size": 1}
    with pytest.raises(Damaged, match="does not live"):
        apply_generation(live, manifest(live, changed=[ghost]), [objmap("a.o", fn("ghost"))])
    for key in ("data_added", "data_updated"):
        with pytest.raises(Damaged, match="ghost"):
            apply_generation(
                live,
                manifest(live, **{key: [{"name": "ghost", "object": "a.o", "address": 0, "size": 1, "extent": 1}]}),
                [],
            )


def test_a_hundred_generations_at_once_are_as_one_by_one(live):
    maps = {g: [objmap("a.o", fn("f", f"v{g}"), var("v"))] for g in range(1, 101)}
    one_by_one, steps = live, []
    for g in range(1, 101):
        entry = manifest(one_by_one, changed=[changed(one_by_one, "f", "a.o", body=0x100000 + 64 * g)])
        steps.append((entry, maps[g]))
        one_by_one = apply_generation(one_by_one, entry, maps[g])
    assert apply_generations(live, steps) == one_by_one
    assert (one_by_one.functions["f"].body, one_by_one.generation) == (0x100000 + 6400, 100)


# ---- who defines what --------------------------------------------------------------------------------------------


def test_redefined_knows_the_other_definers(live):
    new: dict[str, ObjectMap | None] = {"a.o": objmap("a.o", fn("h", "x")), "b.o": None}
    found = live.redefined(new)
    assert [d.object for d in found["h"]] == ["a.o"] and found["f"] == () and found["v"] == ()
    assert [d.object for d in live.redefined({"c.o": objmap("c.o", fn("h"))})["h"]] == ["b.o", "c.o"]
    assert live.build_id == BUILD_ID
