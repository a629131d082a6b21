"""plan.py: what is supported, what is refused and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapmaker import fn, image, objmap, static, var

from hotreload_tool.errors import Refused
from hotreload_tool.live import ImageSymbol, LiveFunction, LiveState, apply_generation, from_image
from hotreload_tool.objectmap import ObjectMap, SpecialEntry
from hotreload_tool.plan import _REFUSALS, Plan, make_plan


def plan(old: ObjectMap | LiveState, *news: ObjectMap, init: str = "merge", **fields: Any) -> Plan:
    live = old if isinstance(old, LiveState) else from_image(image(old, **fields))
    return make_plan(live, {m.object: m for m in news}, init=init)


def refused(made: Plan) -> list[tuple[str, str, str]]:
    return sorted((r.code, r.object, r.name) for r in made.refusals)


def apply(live: LiveState, made: Plan) -> LiveState:
    """`live` after a plan was carried out, with addresses as a payload link could have given them."""
    made.check()
    start = live.arena_used_end
    maps = made.brought
    sizes = {e.name: e.size for m in maps for e in (*m.functions, *m.data)}
    at = iter(range(start, start + 0x1000, 16))
    entry = {
        "build_id": live.build_id,
        "generation": live.generation + 1,
        "id": f"{live.generation + 1:064x}",
        "parent": live.id,
        "arena": [start, start + 0x1000],
        "removed": [],
        "changed": [
            {"name": c.name, "object": c.object, "body": next(at), "size": sizes[c.name]} for c in made.changed
        ],
        "added": [
            {
                "name": a.name,
                "object": a.object,
                "entry": next(at),
                "slot": next(at),
                "body": next(at),
                "size": sizes[a.name],
            }
            for a in made.added
        ],
        "data": {
            "added": [
                {"name": d.name, "object": d.object, "address": next(at), "extent": d.extent} for d in made.new_data
            ],
            "updated": [{"name": u.name} for u in made.updates],
            "bound": [
                {"name": n, "was": b.was, "address": b.address, "extent": b.extent}
                for n, b in made.bindings.items()
                if b.kind in ("data", "tls")
            ],
        },
    }
    return apply_generation(live, entry, maps)


# ---- supported ---------------------------------------------------------------------------------------------------


def test_nothing_changed():
    m = objmap("a.o", fn("f", refs=["v"]), var("v"))
    made = plan(m, m)
    assert made.empty and made.refusals == [] and made.objects == [] and made.maps == []
    assert plan(m).empty


def test_a_changed_function():
    old = objmap("a.o", fn("f", "1", ["v", "g~a.o"]), fn("g~a.o"), var("v"), imports=["puts"])
    live = from_image(image(old, objmap("b.o", fn("h"))))
    made = plan(
        live, objmap("a.o", fn("f", "2", ["v", "g~a.o", "h", "printf"]), fn("g~a.o"), var("v"), imports=["h", "printf"])
    )
    made.check()
    f = live.functions["f"]
    [change] = made.changed
    assert (change.name, change.object, change.entry, change.slot, change.old_body, change.old_size, change.why) == (
        "f",
        "a.o",
        f.entry,
        f.slot,
        f.body,
        16,
        "content",
    )
    assert not (made.added or made.removed or made.new_data or made.updates) and not made.empty
    assert made.objects == made.maps == ["a.o"]
    bindings = {name: (b.address, b.kind, b.slot) for name, b in made.bindings.items()}
    assert bindings == {
        "f": (f.entry, "function", f.slot),
        "v": (live.data["v"].address, "data", None),
        "g~a.o": (live.functions["g~a.o"].entry, "function", live.functions["g~a.o"].slot),
        "h": (live.functions["h"].entry, "function", live.functions["h"].slot),
    }, "printf comes from a library"


def test_new_functions_and_data_come_if_something_that_runs_reaches_them():
    old = objmap("a.o", fn("f", "1"))
    new = objmap(
        "a.o",
        fn("f", "2", ["g~a.o"]),
        fn("g~a.o", refs=["table"]),
        var("table", kind="relro", refs=["k~a.o"]),
        fn("k~a.o"),
        fn("idle"),
        var("unused"),
    )
    made = plan(old, new)
    made.check()
    assert [a.name for a in made.added] == ["g~a.o", "k~a.o"] and [d.name for d in made.new_data] == ["table"]
    assert not {"g~a.o", "k~a.o", "table", "idle", "unused"} & made.bindings.keys()
    assert "new, but nothing that runs refers to it yet: idle, unused" in made.notes


def test_a_new_function_alone_changes_nothing():
    made = plan(objmap("a.o", fn("f")), objmap("a.o", fn("f"), fn("g")))
    assert made.empty and made.objects == [] and made.maps == ["a.o"] and made.notes


def test_what_waited_in_an_earlier_generation_comes_when_it_is_reached():
    live = from_image(image(objmap("a.o", fn("f", "1")), objmap("b.o", fn("h"))))
    idle = (
        objmap("a.o", fn("f", "2")),
        objmap("b.o", fn("h"), fn("waiting", refs=["store"]), var("store", kind="bss")),
    )
    live = apply(live, plan(live, *idle))
    assert "waiting" not in live.functions and "store" not in live.data
    made = plan(live, objmap("a.o", fn("f", "3", ["waiting"])))
    assert [a.name for a in made.added] == ["waiting"] and [d.name for d in made.new_data] == ["store"]
    assert made.objects == ["a.o", "b.o"]


def test_what_the_linker_left_out_of_the_image_comes_when_it_is_reached():
    m = objmap("a.o", fn("f", "1"), fn("dropped", refs=["v"]), var("v"))
    live = from_image(image(m, without=["dropped", "dropped.hr_slot"]))
    made = plan(live, replace(m, functions=[fn("f", "2", ["dropped"]), *m.functions[1:]]))
    assert [a.name for a in made.added] == ["dropped"] and made.bindings["v"].kind == "data"


def test_a_removed_function_keeps_its_old_code():
    made = plan(objmap("a.o", fn("f", "1", ["g~a.o"]), fn("g~a.o")), objmap("a.o", fn("f", "2")))
    assert [r.name for r in made.removed] == ["g~a.o"] and made.refusals == []
    assert any("no longer in the source: g;" in n for n in made.notes)


def test_an_object_that_left_the_program():
    live = from_image(image(objmap("a.o", fn("f")), objmap("b.o", fn("g"))))
    made = make_plan(live, {"b.o": None})
    assert [r.name for r in made.removed] == ["g"] and made.empty


def test_new_code_does_not_bind_to_what_no_object_defines_any_more():
    """A library may define it now."""
    live = from_image(image(objmap("a.o", fn("f", "1", ["strlcpy"])), objmap("b.o", fn("strlcpy"))))
    made = plan(live, objmap("a.o", fn("f", "2", ["strlcpy"]), imports=["strlcpy"]), objmap("b.o"))
    assert "strlcpy" not in made.bindings


def test_a_function_that_comes_back_goes_through_its_old_slot():
    live = from_image(image(objmap("a.o", fn("f", "1", ["g"]), fn("g", "1"))))
    gone = objmap("a.o", fn("f", "2"))
    after = apply(live, plan(live, gone))
    back = plan(after, objmap("a.o", fn("f", "1", ["g"]), fn("g", "9")))
    assert [(c.name, c.slot) for c in back.changed] == [
        ("f", live.functions["f"].slot),
        ("g", live.functions["g"].slot),
    ]
    same = plan(after, objmap("a.o", fn("f", "1", ["g"]), fn("g", "1")))
    assert [(c.name, c.why) for c in same.changed] == [("f", "content"), ("g", "names")]


def test_a_variable_that_comes_back_goes_on_with_its_value():
    live = from_image(image(objmap("a.o", fn("f", "1", ["v~a.o"]), var("v~a.o", "5"))))
    gone = objmap("a.o", fn("f", "2"))
    after = apply(live, plan(live, gone))
    back = plan(after, objmap("a.o", fn("f", "1", ["v~a.o"]), var("v~a.o", "5")))
    assert back.bindings["v~a.o"].address == live.data["v~a.o"].address and back.new_data == []
    assert any("v is back" in n for n in back.notes)
    other = plan(after, objmap("a.o", fn("f", "1", ["v~a.o"]), var("v~a.o", "6")))
    assert [d.name for d in other.new_data] == ["v~a.o"] and other.refusals == [] and "v~a.o" not in other.bindings


def test_constants_change_in_place():
    old = objmap("a.o", var("k", "1", "rodata", size=40), var("p", "1", "rodata", type="int *const"), fn("g"))
    live = from_image(image(old))
    made = plan(
        live,
        objmap(
            "a.o",
            var("k", "2", "rodata", size=40),
            var("p", "2", "relro", type="int *const", refs=["new"]),
            fn("g"),
            fn("new"),
        ),
    )
    made.check()
    assert [(u.name, u.address, u.size) for u in made.updates] == [
        ("k", live.data["k"].address, 40),
        ("p", live.data["p"].address, 4),
    ]
    assert [a.name for a in made.added] == ["new"] and made.objects == ["a.o"]


def test_existing_thread_locals_are_bound_by_offset():
    live = from_image(
        image(
            objmap("a.o", fn("f", "1"), var("t", kind="tbss")),
            objmap("b.o"),
            extra=[ImageSymbol("elsewhere", 24, 8, "TLS", "GLOBAL", "DEFAULT", ".tbss")],
        )
    )
    made = plan(live, objmap("a.o", fn("f", "2", ["t", "elsewhere"]), var("t", kind="tbss")))
    assert {n: (b.kind, b.address) for n, b in made.bindings.items() if n != "f"} == {
        "t": ("tls", 8),
        "elsewhere": ("tls", 24),
    }


def test_a_public_function_that_moved_keeps_its_slot():
    live = from_image(image(objmap("a.o", fn("f", "1"), fn("g", "1"), var("v")), objmap("b.o")))
    made = plan(live, objmap("a.o"), objmap("b.o", fn("f", "1"), fn("g", "2"), var("v")))
    made.check()
    assert [(c.name, c.object, c.slot) for c in made.changed] == [("g", "b.o", live.functions["g"].slot)]
    assert made.removed == [] and made.new_data == [] and made.bindings["v"].address == live.data["v"].address


def test_only_the_definition_that_the_linker_took_counts():
    weak = {"binding": "weak", "comdat": "f"}
    a, b = objmap("a.o", fn("f", "1", **weak)), objmap("b.o", fn("f", "1", **weak), fn("g", "1"))
    live = from_image(image(a, b))
    assert plan(live, objmap("b.o", fn("f", "2", **weak), fn("g", "1"))).empty
    assert [c.name for c in plan(live, objmap("a.o", fn("f", "2", **weak))).changed] == ["f"]
    assert [
        (c.name, c.object) for c in plan(live, objmap("a.o"), objmap("b.o", fn("f", "2", **weak), fn("g", "1"))).changed
    ] == [("f", "b.o")]


def test_an_inline_function_of_an_uninstrumented_part_is_shared():
    there = [
        ImageSymbol("inl", 0x500, 8, "FUNC", "WEAK", "DEFAULT", ".text"),
        ImageSymbol("ivar", 0x600, 8, "OBJECT", "WEAK", "DEFAULT", ".bss"),
    ]
    live = from_image(image(objmap("a.o", fn("f", "1")), extra=there))
    made = plan(
        live,
        objmap(
            "a.o",
            fn("f", "2", ["inl", "ivar"]),
            fn("inl", binding="weak", comdat="inl"),
            var("ivar", binding="weak", comdat="ivar"),
        ),
    )
    made.check()
    assert made.added == [] and made.new_data == []
    assert {n: (b.kind, b.address) for n, b in made.bindings.items() if n != "f"} == {
        "inl": ("function", 0x500),
        "ivar": ("data", 0x600),
    }


def test_a_caller_that_jumps_straight_into_the_body_is_replaced_too():
    old = objmap("a.o", fn("outer", direct=["middle"]), fn("middle", direct=["inner"]), fn("inner", "1"), fn("other"))
    new = replace(old, functions=[*old.functions[:2], fn("inner", "2"), old.functions[3]])
    assert [(c.name, c.why) for c in plan(old, new).changed] == [
        ("inner", "content"),
        ("middle", "direct"),
        ("outer", "direct"),
    ]


def test_functions_that_run_once_get_a_note():
    init = SpecialEntry(".init_array", 8, "1", ["setup~a.o"])
    old = objmap(
        "a.o", fn("main", "1"), fn("setup~a.o", "1"), fn("late", "1", section=".text.startup.late"), fn("f", "1"), init
    )
    new = objmap(
        "a.o", fn("main", "2"), fn("setup~a.o", "2"), fn("late", "2", section=".text.startup.late"), fn("f", "2"), init
    )
    made = plan(old, new)
    assert made.refusals == [] and len(made.changed) == 4
    assert [n.split()[0] for n in made.notes if "runs once" in n] == ["main", "setup", "late"]


# ---- static locals -----------------------------------------------------------------------------------------------


def test_a_static_local_that_takes_an_old_number_is_new():
    """f's and g's keep their addresses under their new numbers, z's n.0 is new though g's was called that."""
    old = objmap(
        "a.o",
        fn("f", "1", ["n.1~a.o"]),
        fn("g", "1", ["n.0~a.o"]),
        fn("h", "1"),
        static("n.0", "a.o"),
        static("n.1", "a.o"),
    )
    new = objmap(
        "a.o",
        fn("f", "1", ["n.2~a.o"]),
        fn("g", "1", ["n.1~a.o"]),
        fn("h", "2", ["z"]),
        fn("z", "1", ["n.0~a.o"]),
        static("n.0", "a.o"),
        static("n.1", "a.o"),
        static("n.2", "a.o"),
    )
    live = from_image(image(old))
    made = plan(live, new)
    made.check()
    of_f, of_g = live.data["n.1~a.o"].address, live.data["n.0~a.o"].address
    assert {n: (b.address, b.was) for n, b in made.bindings.items() if b.kind == "data"} == {
        "n.2~a.o": (of_f, "n.1~a.o"),
        "n.1~a.o": (of_g, "n.0~a.o"),
    }
    assert [d.name for d in made.new_data] == ["n.0~a.o"] and [a.name for a in made.added] == ["z"]
    after = apply(live, made)
    assert (after.data["n.2~a.o"].address, after.data["n.1~a.o"].address) == (of_f, of_g)
    assert after.data["n.0~a.o"].generation == 1 and after.data["n.0~a.o"].address not in (of_f, of_g)
    again = plan(after, replace(new, functions=[*new.functions[:2], fn("h", "3"), *new.functions[3:]]))
    assert again.bindings["n.0~a.o"].address == after.data["n.0~a.o"].address


def test_renumbering_in_an_object_that_is_not_linked_is_carried_along():
    """Nothing of it runs anew, but the next generation must know the new numbers."""
    live = from_image(image(objmap("a.o", fn("f", "1", ["n.0~a.o"]), static("n.0", "a.o"))))
    first = objmap(
        "a.o", fn("f", "1", ["n.1~a.o"]), fn("idle", "1", ["n.0~a.o"]), static("n.0", "a.o"), static("n.1", "a.o")
    )
    made = plan(live, first)
    assert made.empty and made.maps == ["a.o"]
    after = apply(live, made)
    assert after.data["n.1~a.o"].address == live.data["n.0~a.o"].address and "n.0~a.o" not in after.data
    made = plan(after, replace(first, functions=[fn("f", "2", ["n.1~a.o", "idle"]), first.functions[1]]))
    assert [d.name for d in made.new_data] == ["n.0~a.o"] and made.bindings["n.1~a.o"].address == live.data[
        "n.0~a.o"
    ].address


def test_a_renamed_function_s_variable_goes_on_and_people_are_told():
    old = objmap("a.o", fn("main", "1"), fn("f~a.o", "1", ["n.0~a.o"]), static("n.0", "a.o"))
    made = plan(old, objmap("a.o", fn("main", "2", ["z~a.o"]), fn("z~a.o", "1", ["n.0~a.o"]), static("n.0", "a.o")))
    assert made.bindings["n.0~a.o"].kind == "data" and any("goes on with the value" in n for n in made.notes)


# ---- refused -----------------------------------------------------------------------------------------------------

V = var("v", "5")


@pytest.mark.parametrize(
    "new, code",
    [
        (replace(V, size=8), "data-size"),
        (replace(V, align=1 << 20), "data-align"),
        (replace(V, kind="rodata"), "data-kind"),
        (replace(V, type="float"), "data-type"),
        (replace(V, kind="tdata"), "data-kind"),
    ],
)
def test_changed_variables_are_refused(new, code):
    made = plan(objmap("a.o", V), objmap("a.o", new))
    assert refused(made) == [(code, "a.o", "v")] and not made.empty
    with pytest.raises(Refused, match="a.o: v: .*; .*"):
        made.check()


@pytest.mark.parametrize("align", [1, 2, 16])
def test_another_alignment_that_the_address_has_is_no_change(align):
    """Compilers align one variable more or less, as its uses let them profit from it."""
    assert plan(objmap("a.o", V), objmap("a.o", replace(V, align=align))).empty


@pytest.mark.parametrize("new", [var("v", "6"), var("v", "0", "bss")])
@pytest.mark.parametrize("init", ["merge", "reset"])
def test_a_changed_initialiser_is_an_update(new, init):
    old = objmap("a.o", V)
    made = plan(old, objmap("a.o", new), init=init)
    assert refused(made) == [] and not made.empty and made.objects == ["a.o"]
    assert [(u.name, u.size, u.old_size, u.mode, u.type) for u in made.updates] == [("v", 4, 4, init, "int")]
    again = apply(from_image(image(old)), made)
    assert plan(again, objmap("a.o", new)).empty      # it is what lives now, whatever the process kept


def test_a_changed_initialiser_can_be_left_alone():
    made = plan(objmap("a.o", V), objmap("a.o", var("v", "6")), init="keep")
    assert made.empty and made.notes == ["v keeps its live value: only its initial value changed"]


def test_an_array_grows_into_its_padding_and_shrinks():
    old = var("v", "5", size=8, type="int[2]")
    for size in (4, 12, 64):
        made = plan(objmap("a.o", old), objmap("a.o", replace(old, size=size, type=f"int[{size // 4}]")))
        assert refused(made) == [] and [(u.size, u.old_size) for u in made.updates] == [(size, 8)]
        assert any(f"v has {size} bytes now, it had 8" in n for n in made.notes)
    live = apply(from_image(image(objmap("a.o", old))), made)
    assert live.data["v"].size == 64 and live.data["v"].extent == 64


@pytest.mark.parametrize(
    "changed, codes",
    [
        ({"size": 68, "type": "int[17]"}, ["data-size", "data-type"]),
        ({"size": 16, "type": "long[2]"}, ["data-size", "data-type"]),
        ({"size": 16, "type": None}, ["data-size"]),
    ],
)
def test_an_array_that_does_not_fit_or_has_other_elements_is_refused(changed, codes):
    old = var("v", "5", size=8, type="int[2]")
    assert [c for c, _, _ in refused(plan(objmap("a.o", old), objmap("a.o", replace(old, **changed))))] == codes


def test_padding_that_another_symbol_lies_in_is_not_grown_into():
    """The linker may have taken the copy of an object that has no padding."""
    old = objmap("a.o", var("v", "5", size=8, type="int[2]"))
    at = from_image(image(old)).data["v"].address
    live = from_image(image(old, extra=[ImageSymbol("other", at + 12, 4, "OBJECT", "GLOBAL", "DEFAULT", ".data")]))
    for size, fits in ((12, True), (16, False)):
        made = plan(live, objmap("a.o", var("v", "5", size=size, type=f"int[{size // 4}]")))
        assert (refused(made) == []) is fits


def test_a_changed_size_of_a_constant_is_refused():
    old, new = var("k", "1", "rodata"), var("k", "2", "rodata", size=8)
    assert refused(plan(objmap("a.o", old), objmap("a.o", new))) == [("data-size", "a.o", "k")]


@pytest.mark.parametrize("new", [var("t", "2", "tdata"), var("t", "1", "tdata", size=8), var("t", "0", "tbss")])
def test_changed_thread_locals_are_refused(new):
    assert refused(plan(objmap("a.o", var("t", "1", "tdata")), objmap("a.o", new))) == [("tls-changed", "a.o", "t")]


def test_new_thread_locals_are_refused_where_they_are_used():
    old, t = objmap("a.o", fn("f", "1")), var("t", kind="tbss")
    assert refused(plan(old, objmap("a.o", fn("f", "2", ["t"]), t))) == [("tls-new", "a.o", "t")]
    assert refused(plan(old, objmap("a.o", fn("f", "2"), t))) == []


RESERVE = ImageSymbol("hr_tls_reserve", 16, 1024, "TLS", "LOCAL", "HIDDEN", ".tdata")


@pytest.mark.parametrize("kind, reserve, accepted", [
    ("pie", RESERVE, True),
    ("exec", RESERVE, True),
    ("shared", RESERVE, False),
    ("pie", RESERVE._replace(section=".tbss"), False),
    ("pie", RESERVE._replace(size=0), False),
])
def test_new_thread_locals_with_values(kind, reserve, accepted):
    new = objmap("a.o", fn("f", "2", ["zero", "set"]), var("zero", kind="tbss", size=12), var("set", kind="tdata", align=8))
    made = plan(objmap("a.o", fn("f", "1")), new, kind=kind, extra=[reserve])
    assert ("set" in {r.name for r in made.refusals}) != accepted
    assert [(v.name, v.address, v.size) for v in made.thread_values] == ([("set", 0x3000 + 16, 4)] if accepted else [])


FLAG, INIT = "__tls_guard~a.o", "__tls_init~a.o"


@pytest.mark.parametrize("old, new, wrong", [
    ([], [fn(INIT, "2", ["b", FLAG])], []),                                               # the unit's first one
    ([fn(INIT, "1", ["a", FLAG])], [fn(INIT, "2", ["a", "b", FLAG])], [INIT]),            # threads have run it
    ([fn("g", "1", ["a"])], [fn(INIT, "2", ["a", "b", FLAG]), fn("g", "1", ["a"])], [INIT]),     # it might set `a` again
    ([fn("g", "1", ["a", FLAG])], [fn("g", "2", ["a", "b", FLAG])], ["g"]),               # inlined
    ([fn(INIT, "1", ["a", FLAG])], [fn(INIT, "2", ["a", FLAG])], []),
])
def test_thread_locals_that_code_initialises(old, new, wrong):
    def data(functions):
        used = {r for f in functions for r in f.refs}
        return [var(n, kind="tbss") for n in ("a", "b", FLAG) if n in used]

    last = fn("f", "2", [f.name for f in new])
    made = plan(objmap("a.o", fn("f", "1"), *old, *data(old)), objmap("a.o", last, *new, *data(new)), extra=[RESERVE])
    assert [(r.code, r.name) for r in made.refusals] == [("tls-initialiser", n) for n in wrong]


def test_a_changed_layout_is_refused_by_name_with_its_users():
    live = from_image(
        image(objmap("a.o", types={"1" * 16: "struct point"}), objmap("b.o", types={"1" * 16: "struct point"}))
    )
    made = plan(live, *(objmap(o, types={"2" * 16: "struct point"}) for o in ("a.o", "b.o")))
    assert refused(made) == [("type-layout", "a.o", "struct point")] and "used by a.o, b.o" in str(made.refusals[0])


OLD_POINT = {"types": {"1" * 16: "struct point"}, "layouts": {"1" * 16: "struct 8\n0 int x\n4 int y"}}
NEW_POINT = {"types": {"2" * 16: "struct point"}, "layouts": {"2" * 16: "struct 12\n0 int x\n4 int y\n8 int z"}}


def layout(digit: str, members: str, name: str = "struct point") -> dict[str, dict[str, str]]:
    return {"types": {digit * 16: name}, "layouts": {digit * 16: f"struct {4 * members.count('int')}\n{members}"}}


TWO, THREE = layout("1", "0 int x\n4 int y"), layout("2", "0 int x\n4 int y\n8 int z")


def test_a_changed_layout_that_no_code_of_the_process_knows_is_taken():
    """A new source file of which nothing was reached yet: what it defines is in no process."""
    main = objmap("a.o", fn("f", "1"))
    live = apply(from_image(image(main)), made := make_plan(from_image(image(main)), {
        "a.o": objmap("a.o", fn("f", "2")), "b.o": objmap("b.o", fn("g"), **TWO)}))
    assert made.refusals == [] and [a.name for a in made.added] == []
    news = {"a.o": objmap("a.o", fn("f", "3", ["g"])), "b.o": objmap("b.o", fn("g", "2"), **THREE)}
    made = make_plan(live, news)
    assert made.refusals == [] and [a.name for a in made.added] == ["g"]
    assert any("struct point has another layout; the process has no code that knows it" in note for note in made.notes)
    live = apply(live, made)
    changed = {"b.o": objmap("b.o", fn("g", "3"), **layout("3", "0 int x"))}
    assert refused(make_plan(live, changed)) == [("type-layout", "b.o", "struct point")], "now there is such code"


def test_a_changed_layout_is_refused_if_any_code_of_its_file_lives():
    old = objmap("a.o", fn("f", "1"), fn("unused", "1"), **TWO)
    new = objmap("a.o", fn("f", "2", ["unused"]), fn("unused", "2"), **THREE)
    assert refused(plan(old, new, without=["unused", "unused.hr_slot", "unused.hr_body"])) == [
        ("type-layout", "a.o", "struct point")]
    gone = [n + suffix for n in ("f", "unused") for suffix in ("", ".hr_slot", ".hr_body")]
    main = objmap("main.o", fn("main", "1"))
    live = from_image(image(main, old, without=gone))
    made = make_plan(live, {"a.o": new, "main.o": objmap("main.o", fn("main", "2", ["f"]))})
    assert made.refusals == [], "the linker left out all of the file"


def test_a_type_that_comes_back_with_another_layout_is_refused():
    live = from_image(image(objmap("a.o", fn("f", "1"), **TWO)))
    live = apply(live, plan(live, objmap("a.o", fn("f", "2"))))
    assert refused(plan(live, objmap("a.o", fn("f", "3"), **THREE))) == [("type-layout", "a.o", "struct point")]
    assert refused(plan(live, objmap("a.o", fn("f", "3"), **TWO))) == []


def test_a_changed_layout_is_explained_with_the_variables_that_hold_it():
    held, other = var("p", type="struct point *[3]", size=24), var("q~a.o", type="struct pointer")
    made = plan(objmap("a.o", held, other, **OLD_POINT), objmap("a.o", held, other, **NEW_POINT))
    assert refused(made) == [("type-layout", "a.o", "struct point")]
    reason = str(made.refusals[0])
    assert "(was struct 8 bytes, is struct 12 bytes; new: `int z` at 8), used by a.o, held by p:" in reason


def test_a_reserve_that_is_used_is_noted():
    layouts = (
        "struct 24 align 8\n0 int x\n8 unsigned char hotreload_reserve[16]",
        "struct 24 align 8\n0 int x\n8 long int z\n16 unsigned char hotreload_reserve[8]",
    )
    old, new = (objmap("a.o", types={d * 16: "S"}, layouts={d * 16: t}) for d, t in zip("12", layouts))
    made = plan(old, new)
    assert made.refusals == [] and any("S takes from its reserve: `long int z` at 8" in n for n in made.notes)


def test_virtual_functions_that_move_are_refused_once():
    old = [objmap(o, virtuals={"struct A": "2 f\n3 g"}) for o in ("a.o", "b.o")]
    made = plan(from_image(image(*old)), *(objmap(o, virtuals={"struct A": "2 e\n3 f\n4 g"}) for o in ("a.o", "b.o")))
    assert refused(made) == [("virtual-functions", "a.o", "struct A")]


def vtable(size: int, extent: int = 96, **fields: Any) -> Any:
    return var("_ZTV1A", str(size), kind="relro", size=size, extent=extent, align=8, type=None, **fields)


def test_a_table_of_virtual_functions_grows_into_its_padding():
    old, new = objmap("a.o", vtable(32)), objmap("a.o", vtable(40))
    made = plan(old, new)
    updates = [(u.name, u.size, u.old_size, u.mode) for u in made.updates]
    assert made.refusals == [] and updates == [("_ZTV1A", 40, 32, "constant")]


VTABLES = {
    "no room": (vtable(32, 40), vtable(48), {}, "room for 40 bytes"),
    "several tables": (vtable(32, 32), vtable(40), {}, "several tables"),
    "shrunk": (vtable(40), vtable(32), {}, "functions that left"),
    "untyped": (vtable(32), vtable(40), {"typed": False}, "without type information"),
}


@pytest.mark.parametrize("case", VTABLES)
def test_a_table_of_virtual_functions_that_cannot_grow(case: str) -> None:
    old, new, fields, why = VTABLES[case]
    made = plan(objmap("a.o", old, **fields), objmap("a.o", new, **fields))
    assert refused(made) == [("vtable", "a.o", "_ZTV1A")] and why in str(made.refusals[0])


@pytest.mark.parametrize(("name", "refuses"), [("_ZTV7Foreign", True), ("_ZTVSt9exception", False)])
def test_a_table_of_an_uninstrumented_part_may_be_of_a_derived_class(name: str, refuses: bool) -> None:
    foreign = ImageSymbol(name, 0x9000, 40, "OBJECT", "GLOBAL", "DEFAULT", ".data.rel.ro")
    live = from_image(image(objmap("a.o", vtable(32)), extra=[foreign]))
    made = plan(live, objmap("a.o", vtable(40)))
    assert bool(made.refusals) == refuses
    assert not refuses or "_ZTV7Foreign is not instrumented" in str(made.refusals[0])


def test_types_that_only_appear_or_disappear_are_fine():
    assert plan(objmap("a.o", types={"1" * 16: "S"}), objmap("a.o", types={"2" * 16: "T"})).refusals == []


def test_a_type_that_moved_and_changed_is_refused_unless_the_old_one_lives_on():
    a, b, c = (objmap(o, types=t) for o, t in (("a.o", {"1" * 16: "S"}), ("b.o", {}), ("c.o", {"1" * 16: "S"})))
    news = objmap("a.o", fn("f")), objmap("b.o", types={"2" * 16: "S"})
    assert refused(plan(from_image(image(a, b)), *news)) == [("type-layout", "b.o", "S")]
    assert refused(plan(from_image(image(a, b, c)), *news)) == []


def test_another_signature_is_another_function():
    """All that names it is linked to the new one, also what is otherwise as it was; nothing is stored into the old slot."""
    old, new = fn("f", "1", signature="int (int)"), fn("f", "2", signature="int (int, char *)")
    caller, table, idle = fn("g", "1", ["f"]), var("t", "1", "rodata", refs=["f"]), fn("h", "1")
    made = plan(objmap("a.o", old, caller, table, idle), objmap("a.o", new, caller, table, idle))
    assert made.refusals == [] and [c.name for c in made.changed] == ["g"] and [u.name for u in made.updates] == ["t"]
    assert [a.name for a in made.added] == ["f"] and "f" not in made.bindings and "h" in made.bindings
    assert any("int (int, char *)" in note and "int (int)" in note for note in made.notes)


def test_what_works_with_a_lambda_whose_captures_changed_is_new_even_where_its_code_is_as_it_was():
    """Else the old invoker would be linked to the new call operator, and hand it an old closure."""
    before, after = "int (), with {struct 4; 0 int __base}", "int (), with {struct 8; 0 int __base; 4 int __more}"
    operator, invoker = fn("_ZlE", "1", signature=before), fn("_Zi", "1", ["_ZlE"], signature=before)
    other = fn("m", "1", ["_Zi"])
    made = plan(objmap("a.o", operator, invoker, other),
                objmap("a.o", replace(operator, digest="2" * 32, signature=after), replace(invoker, signature=after), other))
    assert [c.name for c in made.changed] == ["m"] and sorted(a.name for a in made.added) == ["_Zi", "_ZlE"]
    assert "_Zi" not in made.bindings and len(made.notes) == 1
    assert before.partition("with ")[2] in made.notes[0] and after.partition("with ")[2] in made.notes[0]


def test_a_return_type_of_cplusplus_is_told_as_such():
    made = plan(objmap("a.o", fn("_Z1fi", "1", signature="int ()")), objmap("a.o", fn("_Z1fi", "2", signature="struct Big ()")))
    assert [note for note in made.notes if "returns struct Big;" in note and note.endswith("returns int")]


def test_a_signature_says_nothing_where_the_code_is_as_it_was_or_it_is_not_known():
    old, new = fn("f", "1", signature="int (int)"), fn("f", "2", signature="int (int, char *)")
    assert plan(objmap("a.o", old), objmap("a.o", replace(new, digest=old.digest))).empty
    assert [c.name for c in plan(objmap("a.o", old), objmap("a.o", fn("f", "2"))).changed] == ["f"]


@pytest.mark.parametrize(
    "section, code",
    [
        (".init_array", "constructor"),
        (".fini_array.00100", "constructor"),
        (".ctors", "constructor"),
        ("my_plugins", "linker-array"),
        (".weird", "special-section"),
    ],
)
def test_changed_special_sections_are_refused(section, code):
    old, new = objmap("a.o", SpecialEntry(section, 8, "1")), objmap("a.o", SpecialEntry(section, 8, "2"))
    assert refused(plan(old, new)) == [(code, "a.o", section)]
    assert refused(plan(objmap("a.o"), new)) == [(code, "a.o", section)]
    assert refused(plan(objmap("b.o"), new)) == [(code, "a.o", section)], "also in an object that is new"
    removed = "constructor-removed" if code == "constructor" else code
    assert refused(plan(old, objmap("a.o"))) == [(removed, "a.o", section)]


def test_known_sections_may_change():
    old, new = (
        objmap("a.o", SpecialEntry(".note.gnu.property", 8, "1")),
        objmap("a.o", SpecialEntry(".note.gnu.property", 8, "2")),
    )
    assert plan(old, new).refusals == []
    assert make_plan(from_image(image(old)), {"a.o": new}, known_sections=()).refusals != []


def test_ambiguous_static_locals_are_refused():
    old = objmap("a.o", fn("f", "1", ["n.0~a.o"]), static("n.0", "a.o"))
    new = objmap("a.o", fn("f", "2", ["n.1~a.o", "n.0~a.o"]), static("n.0", "a.o"), static("n.1", "a.o"))
    made = plan(old, new)
    assert refused(made) == [("static-local", "a.o", "n")] and made.new_data == []
    assert not {"n.0~a.o", "n.1~a.o"} & made.bindings.keys()


def test_a_function_without_stub_in_the_image_is_refused():
    weak = {"binding": "weak", "comdat": "f"}
    made = plan(objmap("a.o", fn("f", "1", **weak)), objmap("a.o", fn("f", "2", **weak)), without=["f.hr_slot"])
    assert refused(made) == [("not-patchable", "a.o", "f")] and made.changed == []


def test_a_function_of_an_uninstrumented_part_is_refused():
    there = [ImageSymbol("f", 0x500, 8, "FUNC", "GLOBAL", "DEFAULT", ".text")]
    made = plan(objmap("a.o"), objmap("a.o", fn("f")), extra=there)
    assert refused(made) == [("not-instrumented", "a.o", "f")]


def test_an_ifunc_of_the_image_cannot_be_called():
    there = [ImageSymbol("chosen", 0x500, 8, "IFUNC", "GLOBAL", "DEFAULT", ".text")]
    made = plan(objmap("a.o", fn("f", "1")), objmap("a.o", fn("f", "2", ["chosen"])), extra=there)
    assert refused(made) == [("ifunc", "a.o", "chosen")]


def test_a_name_that_became_another_kind_of_thing_is_refused():
    assert refused(plan(objmap("a.o", fn("x")), objmap("a.o", var("x")))) == [("kind", "a.o", "x")]
    assert refused(plan(objmap("a.o", var("x")), objmap("a.o", fn("x")))) == [("kind", "a.o", "x")]


CHANGED = {"functions": [fn("f", "2")]}


@pytest.mark.parametrize(
    "fields, code",
    [
        ({"compiler": ["GCC: 13.1.0"]}, "compiler"),
        ({"stubs": "entry"}, "stubs"),
        ({"machine": "aarch64"}, "stubs"),
        ({"typed": False, "headers": "2"}, "no-type-information"),
    ],
)
def test_another_way_of_compiling_is_refused_if_anything_changed(fields, code):
    old = objmap("a.o", fn("f", "1"), headers="1")
    assert refused(plan(old, replace(old, **fields, **CHANGED))) == [(code, "a.o", "")]
    same = plan(old, replace(old, **fields))
    assert same.refusals == [] and same.empty, "what changed nothing does no harm"


def test_without_type_information_an_edit_of_the_source_alone_gets_a_note():
    old = objmap("a.o", fn("f", "1"), headers="1", typed=False)
    made = plan(old, replace(old, **CHANGED))
    assert made.refusals == [] and any("no type information" in n for n in made.notes)


def test_all_reasons_are_told_at_once():
    old = objmap("a.o", V, fn("f", "1", signature="int (int)"), var("t", kind="tbss"), types={"1" * 16: "S"})
    new = objmap(
        "a.o",
        replace(V, size=8, type="long"),
        fn("f", "2", signature="int (void)"),
        var("t", kind="tbss", size=8),
        SpecialEntry(".init_array", 8, "1"),
        types={"2" * 16: "S"},
    )
    with pytest.raises(Refused) as caught:
        plan(old, new).check()
    codes = sorted(r.code for r in caught.value.refusals)
    assert codes == ["constructor", "data-size", "data-type", "tls-changed", "type-layout"]
    assert str(caught.value).count("\n") == 4


def test_every_refusal_has_a_reason_and_advice_in_plain_words():
    for reason, advice in _REFUSALS.values():
        assert reason and advice and not reason.endswith(".") and not advice.endswith(".")


# ---- noise -------------------------------------------------------------------------------------------------------


def noise_plan(old: ObjectMap, new: ObjectMap, *noise: str) -> tuple[Plan, list[str]]:
    """A plan for which functions called `noise` are noise, and the functions that were asked about."""
    asked: list[str] = []

    def is_noise(obj: str, was: LiveFunction, binding: Any) -> bool:
        asked.append(was.name)
        assert binding("v").address == 0x8000 + 64 * len(old.functions)
        return was.name in noise

    return make_plan(from_image(image(old)), {new.object: new}, is_noise=is_noise), asked


def test_noise_is_no_change():
    old = objmap("a.o", *(fn(name, "1", ["v"]) for name in "fgh"), fn("same", "1"), V)
    new = objmap("a.o", *(fn(name, "2", ["v"]) for name in "fg"), fn("h", "2", ["v"], size=20), fn("same", "1"), V)
    made, asked = noise_plan(old, new, "f", "h")
    assert asked == ["f", "g"], "another size is no noise"
    assert sorted(c.name for c in made.changed) == ["g", "h"]
    assert "1 function differs only in line numbers, and stays as it is" in made.notes
    made, _ = noise_plan(old, replace(new, functions=[fn(name, "2", ["v"]) for name in "fgh"]), "f", "g", "h")
    assert made.changed == [] and "3 functions differ only in line numbers, and stay as they are" in made.notes


def test_only_noise_is_an_empty_plan():
    old, new = objmap("a.o", fn("f", "1"), V), objmap("a.o", fn("f", "2"), replace(V, digest="0" * 32))
    assert noise_plan(old, new, "f", "v")[0].empty
    assert [u.name for u in noise_plan(old, new, "f")[0].updates] == ["v"]


def test_noise_is_linked_anew_if_a_name_in_it_means_something_else():
    old = objmap("a.o", fn("f", "1", ["v"]), fn("k", "1", ["w"]), V, var("w"))
    gone = objmap("a.o", fn("f", "2", ["v"]), fn("k", "2", ["w"]), V, imports=["w"])
    made, _ = noise_plan(old, gone, "f", "k")
    assert [(c.name, c.why) for c in made.changed] == [("k", "names")]
    assert "1 function differs only in line numbers, and stays as it is" in made.notes


# ---- properties --------------------------------------------------------------------------------------------------


@st.composite
def edits(draw: st.DrawFn) -> list[ObjectMap]:
    """Versions of one object: functions come, change and go, with static locals that are numbered anew each time."""
    versions = []
    for _ in range(draw(st.integers(2, 5))):
        names = draw(st.lists(st.sampled_from(["f", "g", "h", "z"]), unique=True, min_size=1))
        functions, data = [], []
        for name in reversed(names):
            count = draw(st.sampled_from([0, 1, 1, 1, 2]))
            mine = [f"n.{len(data) + k}" for k in range(count)][::-1]
            functions.append(fn(name, draw(st.sampled_from("12")) + str(count), [f"{n}~a.o" for n in mine]))
            data += [static(n, "a.o") for n in reversed(mine)]
        main = fn("main", "".join(names), names)
        versions.append(objmap("a.o", main, *functions, *data))
    return versions


@settings(max_examples=400)
@given(edits())
def test_code_that_runs_and_the_books_agree_on_where_every_variable_is(versions):
    """Over any chain of generations, functions that left and came back included."""
    live = from_image(image(versions[0]))
    linked = {f.name: [live.data[r].address for r in f.refs] for f in versions[0].functions if f.name != "main"}
    for after in versions[1:]:
        made = plan(live, after)
        if made.refusals:
            assert {r.code for r in made.refusals} == {"static-local"}
            return
        live = apply(live, made)
        assert plan(live, after).empty
        anew = {c.name for c in (*made.changed, *made.added)}
        running = [f for f in after.functions if f.name in live.functions and f.name != "main"]
        for f in running:
            addresses = [live.data[r].address for r in f.refs]
            assert f.name in anew or addresses == linked[f.name], "code that was not replaced uses what it always used"
            linked[f.name] = addresses
        used = [a for f in running for a in linked[f.name]]
        assert len(set(used)) == len(used), "no two functions share one"


def test_a_static_local_comes_back_with_its_function_and_nobody_else_takes_it():
    """As after commenting a call out, patching, patching something else in, and undoing both."""
    g = fn("g~a.o", "1", ["n.0~a.o"])
    first = objmap("a.o", fn("main", "1", ["g~a.o"]), g, static("n.0", "a.o"))
    without = objmap("a.o", fn("main", "2"))
    other = objmap("a.o", fn("main", "3", ["z~a.o"]), fn("z~a.o", "1", ["n.0~a.o"]), static("n.0", "a.o"))
    live = from_image(image(first))
    place = live.data["n.0~a.o"].address
    live = apply(live, plan(live, without))
    made = plan(live, other)
    assert [d.name for d in made.new_data] == ["n.0~a.o"]
    live = apply(live, made)
    assert live.data["n.0~a.o"].address != place
    back = plan(live, first)
    assert back.bindings["n.0~a.o"].address == place and back.new_data == []
    assert [c.name for c in back.changed] == ["main", "g~a.o"] and any("n.0 is back" in n for n in back.notes)
    live = apply(live, back)
    assert live.data["n.0~a.o"].address == place and live.retired_statics["a.o"].keys() == {"n.0!3~a.o"}


# ---- names that mean something else now --------------------------------------------------------------------------


def test_unchanged_code_is_linked_anew_if_its_variable_comes_back_as_another():
    old = objmap("a.o", fn("main", "1", ["g~a.o"]), fn("g~a.o", "1", ["v~a.o"]), var("v~a.o", "5"))
    live = from_image(image(old))
    gone = objmap("a.o", fn("main", "2"))
    live = apply(live, plan(live, gone))
    made = plan(live, replace(old, data=[var("v~a.o", "6")]))
    assert [(c.name, c.why) for c in made.changed] == [("main", "content"), ("g~a.o", "names")]
    assert [d.name for d in made.new_data] == ["v~a.o"]


def test_a_function_that_takes_the_place_of_a_library_s_and_gives_way_to_it():
    caller, table = fn("f", "1", ["strlcpy"]), var("table", "1", "relro", refs=["strlcpy"])
    a, empty, own = objmap("a.o", caller, table, imports=["strlcpy"]), objmap("b.o"), objmap("b.o", fn("strlcpy"))
    made = plan(from_image(image(a, empty)), own)
    assert [(c.name, c.object, c.why) for c in made.changed] == [("f", "a.o", "names")] and made.objects == [
        "a.o",
        "b.o",
    ]
    assert [x.name for x in made.added] == ["strlcpy"] and [u.name for u in made.updates] == ["table"]
    made = plan(from_image(image(a, own)), empty)
    assert [(c.name, c.why) for c in made.changed] == [("f", "names")] and "strlcpy" not in made.bindings
    assert [u.name for u in made.updates] == ["table"] and made.objects == ["a.o"]


def test_a_writable_variable_whose_initial_value_means_something_else_takes_it_if_it_still_has_the_old_one():
    a = objmap("a.o", var("hook", "1", refs=["strlcpy"]), imports=["strlcpy"])
    made = plan(from_image(image(a, objmap("b.o"))), objmap("b.o", fn("strlcpy")))
    assert refused(made) == [] and [(u.name, u.mode) for u in made.updates] == [("hook", "merge")]
    assert [x.name for x in made.added] == ["strlcpy"]


def test_an_object_that_left_is_empty_from_then_on():
    """Its function's place is taken by a library's, once and not in every later generation again."""
    caller = objmap("a.o", fn("f", "1", ["strlcpy"]), imports=["strlcpy"])
    live = from_image(image(caller, objmap("b.o", fn("strlcpy"), var("v"), types={"1" * 16: "S"})))
    made = make_plan(live, {"b.o": None})
    assert [(c.name, c.why) for c in made.changed] == [("f", "names")] and made.maps == ["a.o", "b.o"] and made.objects == ["a.o"]
    after = apply(live, made)
    assert after.maps["b.o"].functions == [] and after.types == {} and after.data["v"].retired == 1
    again = make_plan(after, {"a.o": caller, "b.o": None, "never.o": None})
    assert again.empty and again.removed == [] and again.maps == []
