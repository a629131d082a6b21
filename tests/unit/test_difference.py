"""difference.py: what changed between object maps, by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapmaker import fn, objmap, static, var

from hotreload_tool.difference import (
    compare,
    compare_objects,
    correlate,
    mentions,
    summary,
    virtual_changes,
    without_clone_suffix,
    worth_telling,
)
from hotreload_tool.objectmap import DataEntry, FunctionEntry, ObjectMap, SpecialEntry

# ---- functions and data ------------------------------------------------------------------------------------------


def test_changed_added_and_removed_functions():
    old = objmap("a.o", fn("same"), fn("edited", "1"), fn("gone"))
    new = objmap("a.o", fn("same"), fn("edited", "2"), fn("fresh"))
    found = compare(old, new)
    assert (found.changed, found.added, found.removed) == (["edited"], ["fresh"], ["gone"])
    assert not found.empty


def test_a_new_object_is_all_added_and_a_removed_one_all_removed():
    m = objmap("a.o", fn("f"), var("v"))
    assert (compare(None, m).added, compare(None, m).data_added) == (["f"], ["v"])
    assert (compare(m, None).removed, compare(m, None).data_removed) == (["f"], ["v"])


@pytest.mark.parametrize(
    "field, value, what",
    [
        ("size", 8, "size"),
        ("align", 16, "align"),
        ("kind", "rodata", "kind"),
        ("type", "long", "type"),
        ("digest", "f" * 32, "content"),
    ],
)
def test_each_aspect_of_data_is_seen(field, value, what):
    old = var("v")
    found = compare(objmap("a.o", old), objmap("a.o", replace(old, **{field: value})))
    assert [(c.name, c.what) for c in found.data_changed] == [("v", (what,))]
    assert not (found.data_added or found.data_removed)


def test_zero_as_initial_value_is_a_change_of_content_not_of_kind():
    found = compare(objmap("a.o", var("v", "5", "data")), objmap("a.o", var("v", "0", "bss")))
    assert [c.what for c in found.data_changed] == [("content",)]


def test_an_unknown_type_is_no_difference():
    assert compare(objmap("a.o", var("v", type=None)), objmap("a.o", var("v", type="int"))).empty


def test_a_function_that_became_data_and_back():
    f, v = objmap("a.o", fn("x")), objmap("a.o", var("x"))
    assert compare(f, v).became_data == ["x"] and compare(f, v).data_added == []
    assert compare(v, f).became_function == ["x"] and compare(v, f).data_removed == []


def test_signature_changes_where_both_are_known():
    old = objmap("a.o", fn("f", "1", signature="int (int)"), fn("g", "1"))
    new = objmap("a.o", fn("f", "2", signature="int (long)"), fn("g", "2", signature="void (void)"))
    assert [(s.name, s.old, s.new) for s in compare(old, new).signatures] == [("f", "int (int)", "int (long)")]


def test_special_sections():
    old = objmap("a.o", SpecialEntry(".init_array", 8, "a"), SpecialEntry("set", 8, "x"), SpecialEntry("gone", 8, "x"))
    new = objmap("a.o", SpecialEntry(".init_array", 8, "b"), SpecialEntry("set", 8, "x"), SpecialEntry("come", 8, "x"))
    found = compare(old, new)
    assert [(s.section, s.what) for s in found.special] == [
        (".init_array", "changed"),
        ("come", "added"),
        ("gone", "removed"),
    ]


# ---- several objects ---------------------------------------------------------------------------------------------


def test_a_public_function_that_moved_is_compared_by_digest():
    old = [objmap("a.o", fn("f", "1"), fn("g", "1")), objmap("b.o")]
    new = [objmap("a.o"), objmap("b.o", fn("f", "1"), fn("g", "2"))]
    found = compare_objects(old, new)
    assert (found.changed, found.added, found.removed) == (["g"], [], [])


def test_the_strong_definition_counts_else_the_first():
    weak_a, weak_b = fn("f", "a", binding="weak", comdat="f"), fn("f", "b", binding="weak", comdat="f")
    a, b, strong = objmap("a.o", weak_a), objmap("b.o", weak_b), objmap("c.o", fn("f", "c"))
    assert compare_objects([a, b], [a, objmap("b.o", replace(weak_b, digest="0" * 32))]).empty
    assert compare_objects([a, b], [objmap("a.o"), b]).changed == ["f"]
    assert compare_objects([a, b], [a, b, strong]).changed == ["f"]


def test_objects_of_different_paths_are_the_same_object():
    old = objmap("old/a.o", fn("f~old/a.o", refs=["v~old/a.o"]), var("v~old/a.o"))
    new = objmap("new/a.o", fn("f~new/a.o", refs=["v~new/a.o"]), var("v~new/a.o"))
    assert compare(old, new).empty


# ---- types -------------------------------------------------------------------------------------------------------


def test_a_changed_layout_keeps_the_name_and_changes_the_digest():
    old, new = objmap("a.o", types={"1" * 16: "S", "2" * 16: "T"}), objmap("a.o", types={"3" * 16: "S", "2" * 16: "T"})
    assert [(t.object, t.name) for t in compare(old, new).types] == [("a.o", "S")]


def test_types_that_only_come_or_go_are_no_change():
    old, new = objmap("a.o", types={"1" * 16: "S"}), objmap("a.o", types={"2" * 16: "T"})
    found = compare(old, new)
    assert found.empty and (found.types_removed, found.types_added) == (["S"], ["T"])


def test_a_type_that_moves_and_changes_is_found_and_two_of_one_name_are_not():
    a, b = objmap("a.o", types={"1" * 16: "S"}), objmap("b.o")
    moved = compare_objects([a, b], [objmap("a.o"), objmap("b.o", types={"2" * 16: "S"})])
    assert [(t.object, t.name) for t in moved.types] == [("b.o", "S")]
    assert compare_objects([a, b], [a, objmap("b.o", types={"2" * 16: "S"})]).types == []


def test_a_layout_change_says_whether_old_objects_survive_it():
    reserved = "struct 40 align 8\n0 int a\n8 unsigned char hotreload_reserve[32]"
    used = "struct 40 align 8\n0 int a\n8 long int b\n16 unsigned char hotreload_reserve[24]"
    old = objmap("a.o", types={"1" * 16: "S"}, layouts={"1" * 16: reserved})
    for layout, survives in ((used, True), (used.replace("40", "48"), False)):
        new = objmap("a.o", types={"2" * 16: "S"}, layouts={"2" * 16: layout})
        (change,) = compare(old, new).types
        assert (change.old_layout, change.new_layout) == (reserved, layout)
        assert (change.compatible is not None) == survives
    unknown = objmap("a.o", types={"2" * 16: "S"})
    assert compare(old, unknown).types[0].compatible is None


def first(olds):
    return lambda name: next((m.virtuals[name] for m in olds.values() if name in m.virtuals), None)


def test_virtual_functions_are_compared_with_the_class_wherever_it_was():
    old = {"a.o": objmap("a.o", virtuals={"struct A": "2 f"}), "b.o": objmap("b.o")}
    moved, same = ({"b.o": objmap("b.o", virtuals={"struct A": text})} for text in ("3 f", "2 f\n3 g"))
    assert [(c.object, c.name) for c in virtual_changes(old, moved, first(old))] == [("b.o", "struct A")]
    assert virtual_changes(old, same, first(old)) == []
    assert virtual_changes(old, {"c.o": objmap("c.o", virtuals={"struct B": "9 f"})}, first(old)) == []


def test_types_that_the_library_makes_of_others_need_no_mention():
    changed = ["class std::vector<ns::Foo, std::allocator<ns::Foo> >", "struct ns::Foo", "struct std::pair<int, FooBar>"]
    assert worth_telling(changed) == ["struct ns::Foo", "struct std::pair<int, FooBar>"]
    assert mentions("struct foo *[3]", "struct foo") and not mentions("struct foo_bar", "struct foo")


# ---- what `hotpatch diff` says -----------------------------------------------------------------------------------


def test_summary_has_the_names_of_the_source_and_tells_equal_ones_apart():
    old = [objmap("a.o", fn("f~a.o", "1"), fn("h~a.o", "1")), objmap("b.o", fn("f~b.o", "1"))]
    new = [objmap("a.o", fn("f~a.o", "2"), fn("h~a.o", "2"), var("v")), objmap("b.o", fn("f~b.o", "2"))]
    assert summary(compare_objects(old, new)) == {
        "changed": ["f~a.o", "f~b.o", "h"],
        "added": [],
        "removed": [],
        "data": ["v"],
    }
    assert summary(compare_objects(old, old)) == {"changed": [], "added": [], "removed": [], "data": []}


# ---- C static locals ---------------------------------------------------------------------------------------------


def uses(name: str, content: str, *numbers: int, base: str = "n") -> FunctionEntry:
    return fn(name, content, [f"{base}.{k}~a.o" for k in numbers])


def statics(*numbers: int, **fields: object) -> list[DataEntry]:
    return [static(f"n.{k}", "a.o", **fields) for k in numbers]


def pairs(old: ObjectMap, new: ObjectMap) -> dict[str, str]:
    """Numbers only: {new: old}."""
    found = correlate(old, new)
    assert found.ambiguous == [], found.ambiguous
    return {new.partition("~")[0]: old.partition("~")[0] for new, old in found.pairs.items()}


@pytest.mark.parametrize("edited", ["1", "2"])
def test_a_new_function_takes_the_number_of_an_old_variable(edited):
    """GCC numbers from the last: f's n.1 and g's n.0 become n.2 and n.1, and the new z gets n.0."""
    old = objmap("a.o", uses("f", "1", 1), uses("g", "1", 0), *statics(0, 1))
    new = objmap("a.o", uses("f", edited, 2), uses("g", edited, 1), uses("z", "1", 0), *statics(0, 1, 2))
    assert pairs(old, new) == {"n.2": "n.1", "n.1": "n.0"}
    found = compare(old, new)
    assert found.data_added == ["n.0~a.o"] and found.data_removed == [] and found.data_changed == []
    assert found.renumbered == {"n.2~a.o": "n.1~a.o", "n.1~a.o": "n.0~a.o"}


def test_renumbering_alone_is_no_change():
    old = objmap("a.o", uses("f", "1", 1), uses("g", "1", 0), *statics(0, 1))
    new = objmap("a.o", uses("f", "1", 7), uses("g", "1", 5), *statics(5, 7))
    assert compare(old, new).empty and pairs(old, new) == {"n.7": "n.1", "n.5": "n.0"}


def test_a_variable_of_a_new_function_is_new_though_an_old_number_is_free():
    old = objmap("a.o", uses("f", "1", 0), *statics(0))
    new = objmap("a.o", uses("f", "2"), uses("z", "1", 0), *statics(0))
    assert pairs(old, new) == {}
    found = compare(old, new)
    assert (found.data_added, found.data_removed) == (["n.0~a.o"], ["n.0~a.o"])


def test_a_renamed_function_takes_its_variable_along_and_says_so():
    old = objmap("a.o", uses("f", "1", 0), *statics(0))
    new = objmap("a.o", uses("renamed", "1", 3), *statics(3))
    assert pairs(old, new) == {"n.3": "n.0"}
    assert "which is gone" in correlate(old, new).inherited["n.3~a.o"]


def test_an_inlined_function_leaves_its_variable_to_its_caller():
    old = objmap("a.o", uses("f~a.o", "1", 0), fn("main", "1"), *statics(0))
    new = objmap("a.o", uses("main", "2", 4), *statics(4))
    assert pairs(old, new) == {"n.4": "n.0"}


def test_a_caller_it_is_inlined_into_joins_its_users():
    old = objmap("a.o", uses("f", "1", 0), fn("main", "1"), *statics(0))
    new = objmap("a.o", uses("f", "2", 1), uses("main", "2", 1), *statics(1))
    assert pairs(old, new) == {"n.1": "n.0"}


def test_two_that_vanished_and_two_that_came_are_ambiguous():
    old = objmap("a.o", uses("f", "1", 0), uses("g", "1", 1), *statics(0, 1))
    new = objmap("a.o", uses("x", "1", 0), uses("y", "1", 1), *statics(0, 1))
    found = correlate(old, new)
    assert found.pairs == {} and [set(a.new) for a in found.ambiguous] == [{"n.0~a.o", "n.1~a.o"}]
    assert "is gone" in found.ambiguous[0].reason


def test_clones_are_their_functions():
    assert without_clone_suffix("f.constprop.0.isra.3~a.o") == "f~a.o"
    assert without_clone_suffix("f.part.0") == "f" and without_clone_suffix("f.cold~a.o") == "f~a.o"
    assert without_clone_suffix("operator.new") == "operator.new"
    old = objmap("a.o", uses("f.constprop.0~a.o", "1", 0), uses("g", "1", 1), *statics(0, 1))
    new = objmap("a.o", uses("f.isra.0~a.o", "2", 1), uses("g", "2", 0), *statics(0, 1))
    assert pairs(old, new) == {"n.1": "n.0", "n.0": "n.1"}


def test_several_in_one_function_pair_up_by_order():
    old = objmap("a.o", uses("f", "1", 1, 0), *statics(0, 1))
    new = objmap("a.o", uses("f", "2", 3, 2), *statics(2, 3))
    assert pairs(old, new) == {"n.3": "n.1", "n.2": "n.0"}


def test_another_order_of_use_in_a_changed_function_is_ambiguous():
    old = objmap("a.o", uses("f", "1", 1, 0), *statics(0, 1))
    new = objmap("a.o", uses("f", "2", 2, 3), *statics(2, 3))
    found = correlate(old, new)
    assert found.pairs == {} and "another order" in found.ambiguous[0].reason


def test_one_more_or_one_less_of_the_same_in_one_function_is_ambiguous():
    one, two = objmap("a.o", uses("f", "1", 0), *statics(0)), objmap("a.o", uses("f", "2", 1, 0), *statics(0, 1))
    assert "had 1 of this name and type, now has 2" in correlate(one, two).ambiguous[0].reason
    assert "had 2 of this name and type, now has 1" in correlate(two, one).ambiguous[0].reason
    assert not compare(one, two).empty


def test_one_more_of_another_type_is_new():
    old = objmap("a.o", uses("f", "1", 0), *statics(0))
    new = objmap("a.o", uses("f", "2", 1, 0), static("n.1", "a.o"), static("n.0", "a.o", size=8, type="long"))
    assert pairs(old, new) == {"n.1": "n.0"}


def test_another_type_or_size_is_a_change_of_the_same_variable():
    old = objmap("a.o", uses("f", "1", 0), *statics(0))
    new = objmap("a.o", uses("f", "2", 0), *statics(0, size=8, type="long"))
    assert [(c.name, c.was, c.what) for c in compare(old, new).data_changed] == [
        ("n.0~a.o", "n.0~a.o", ("size", "type"))
    ]


def test_another_initial_value_keeps_the_identity():
    old = objmap("a.o", uses("f", "1", 0), *statics(0))
    new = objmap("a.o", uses("f", "1", 2), static("n.2", "a.o", kind="data", content="5"))
    assert [(c.was, c.what) for c in compare(old, new).data_changed] == [("n.0~a.o", ("content",))]


def test_merged_or_split_users_are_ambiguous():
    old = objmap("a.o", uses("f", "1", 0), uses("g", "1", 1), *statics(0, 1))
    new = objmap("a.o", uses("f", "2", 0, 1), uses("g", "2", 1, 0), *statics(0, 1))
    assert "merged or split" in correlate(old, new).ambiguous[0].reason


def test_unchanged_functions_that_disagree_make_it_ambiguous():
    """f was inlined into g, so that both used one n; now each has its own."""
    old = objmap("a.o", uses("f", "1", 0), uses("g", "1", 0), *statics(0))
    new = objmap("a.o", uses("f", "1", 0), uses("g", "1", 1), *statics(0, 1))
    assert "disagree" in correlate(old, new).ambiguous[0].reason


def test_use_through_other_data_counts():
    """`static int n; static int *const p = &n;` in f and in g: only p is used directly."""

    def pointer(k: int, to: int) -> DataEntry:
        return static(f"p.{k}", "a.o", kind="relro", type="int *const", refs=[f"n.{to}~a.o"])

    old = objmap(
        "a.o", uses("f", "1", 0, base="p"), uses("g", "1", 1, base="p"), *statics(0, 1), pointer(0, 0), pointer(1, 1)
    )
    new = objmap(
        "a.o", uses("f", "2", 1, base="p"), uses("g", "2", 0, base="p"), *statics(0, 1), pointer(1, 1), pointer(0, 0)
    )
    assert pairs(old, new) == {"n.1": "n.0", "n.0": "n.1", "p.1": "p.0", "p.0": "p.1"}


def test_other_names_don_t_mix():
    old = objmap("a.o", fn("f", "1", ["n.0~a.o"]), static("n.0", "a.o"))
    new = objmap("a.o", fn("f", "2", ["m.0~a.o"]), static("m.0", "a.o"))
    found = compare(old, new)
    assert (found.data_added, found.data_removed, found.pairs) == (["m.0~a.o"], ["n.0~a.o"], {})


def test_unused_ones_pair_up_quietly():
    assert pairs(objmap("a.o", *statics(0, 1)), objmap("a.o", *statics(2, 3))) == {"n.2": "n.0", "n.3": "n.1"}


# ---- properties --------------------------------------------------------------------------------------------------

_numbers = st.lists(st.integers(0, 4), unique=True, max_size=4)


@st.composite
def maps(draw: st.DrawFn) -> ObjectMap:
    """Objects with a few functions and variables, static locals shared in any way among them."""
    numbers = draw(_numbers)
    functions = draw(st.lists(st.sampled_from("fghk"), unique=True))
    entries: list[FunctionEntry | DataEntry] = [
        static(f"n.{k}", "a.o", size=draw(st.sampled_from([4, 8]))) for k in numbers
    ]
    for name in functions:
        used = draw(st.lists(st.sampled_from(numbers), unique=True)) if numbers else []
        entries.append(fn(name, draw(st.sampled_from("12")), [f"n.{k}~a.o" for k in used]))
    entries += [
        var(v, draw(st.sampled_from("12")), draw(st.sampled_from(["data", "rodata"])))
        for v in draw(st.sets(st.sampled_from("vw")))
    ]
    types = draw(st.dictionaries(st.sampled_from(["1" * 16, "2" * 16]), st.sampled_from("ST")))
    return objmap("a.o", *entries, types=types)


@given(maps())
def test_a_map_does_not_differ_from_itself(m):
    found = compare(m, m)
    assert found.empty, found
    assert found.pairs == {d.name: d.name for d in m.data if d.static_local}


@given(maps(), maps())
def test_added_and_removed_are_each_other_s_mirror(old, new):
    there, back = compare(old, new), compare(new, old)
    assert (there.added, there.removed, there.changed) == (back.removed, back.added, back.changed)
    assert {t.name for t in there.types} == {t.name for t in back.types}
    plain = {d.name for d in (*old.data, *new.data) if not d.static_local}
    assert set(there.data_added) & plain == set(back.data_removed) & plain


@given(maps(), maps())
def test_no_two_new_variables_get_one_old_one(old, new):
    found = correlate(old, new)
    assert len(set(found.pairs.values())) == len(found.pairs)
    assert not found.ambiguous_names & found.pairs.keys()
    assert set(found.pairs) <= {d.name for d in new.data} and set(found.pairs.values()) <= {d.name for d in old.data}


@given(maps(), st.permutations(range(5)))
def test_any_renumbering_is_no_change(m, numbers):
    """Variables that no code reaches are left out: nothing but the number could tell them apart."""
    used = {r for f in m.functions for r in f.refs}
    m = replace(m, data=[d for d in m.data if not d.static_local or d.name in used])
    new_name = {f"n.{k}~a.o": f"n.{numbers[k]}~a.o" for k in range(5)}
    data = [replace(d, name=new_name.get(d.name, d.name)) for d in m.data]
    functions = [replace(f, refs=[new_name.get(r, r) for r in f.refs]) for f in m.functions]
    found = compare(m, replace(m, functions=functions, data=data))
    assert found.empty, found
    assert found.pairs == {new_name[d.name]: d.name for d in m.data if d.static_local}
