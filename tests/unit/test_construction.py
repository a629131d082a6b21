"""construction.py, by way of the plan: which initialisation code may run, and which must not."""

from __future__ import annotations

import re

import pytest
from mapmaker import fn, image, objmap, var

from hotreload_tool.construction import Initialiser
from hotreload_tool.live import from_image
from hotreload_tool.objectmap import SpecialEntry
from hotreload_tool.plan import make_plan


def plan(old, new):
    return make_plan(from_image(image(old)), {new.object: new})


def refused(made):
    return sorted((r.code, r.object, r.name) for r in made.refusals)


START = "_GLOBAL__sub_I_x~a.o"


def start(*refs, content="1", name=START):
    """The function that initialises a unit's variables, and the section by which it is found."""
    return fn(name, content, refs), SpecialEntry(".init_array", 8, content, [name])


def test_objects_that_code_initialises_come_with_that_code():
    old, new = objmap("a.o", fn("f", "1")), objmap("a.o", fn("f", "2", ["x"]), *start("x", "make"), var("x"), fn("make"))
    made = plan(old, new)
    assert made.refusals == [] and made.initialisers == [Initialiser("a.o", START)]
    assert {d.name for d in made.new_data} == {"x"} and {f.name for f in made.added} == {START, "make"}
    assert any("a.o: initialises x, once" in note for note in made.notes)


def test_an_object_that_nothing_refers_to_is_made_all_the_same():
    made = plan(objmap("a.o", fn("f", "1")), objmap("a.o", fn("f", "1"), *start("x~a.o", "enroll"), var("x~a.o"), fn("enroll")))
    assert made.refusals == [] and made.initialisers and not made.empty and {d.name for d in made.new_data} == {"x~a.o"}


LIVING = (*start("x", content="1"), var("x"))


@pytest.mark.parametrize("new, reason", [
    ((*start("x", "y", content="2"), var("x"), var("y")), "y is new, .* together with x"),
    ((*start("x", content="2"), var("x")), "what initialises x changed"),
    ((*start("x", "z", content="2"), var("x"), var("z")), "what initialises x, z changed"),
    ((*start("y", content="2"), var("x"), var("y")), "y is new, .* together with others"),
])
def test_code_that_would_initialise_something_again_is_refused(new, reason):
    made = plan(objmap("a.o", *LIVING, var("z")), objmap("a.o", *new))
    assert refused(made) == [("dynamic-initialiser", "a.o", START)] and re.search(reason, made.refusals[0].reason)


def test_a_variable_that_lives_and_is_initialised_by_code_now_is_refused():
    made = plan(objmap("a.o", var("x")), objmap("a.o", *LIVING))
    assert refused(made) == [("dynamic-initialiser", "a.o", START)] and "x, which lives" in made.refusals[0].reason


def test_a_new_name_of_the_same_code_is_nothing_to_run():
    """GCC names it after the first public name of the unit."""
    renamed = "_GLOBAL__sub_I_earlier~a.o"
    made = plan(objmap("a.o", *LIVING), objmap("a.o", *start("x", name=renamed), var("x"), fn("earlier")))
    assert made.refusals == [] and made.initialisers == []


def test_what_iostream_puts_into_a_unit_may_be_done_again():
    counted = ("_ZStL8__ioinit~a.o", "_ZNSt8ios_base4InitC1Ev", "_ZNSt8ios_base4InitD1Ev", "__cxa_atexit", "__dso_handle")
    old = objmap("a.o", *start(*counted), var(counted[0], kind="bss"))
    new = objmap("a.o", *start(*counted, "x", content="2"), var(counted[0], kind="bss"), var("x"))
    made = plan(old, new)
    assert made.refusals == [] and made.initialisers == [Initialiser("a.o", START)]
    assert refused(plan(objmap("a.o", *start(*counted, "other"), var(counted[0], kind="bss")), new)) != []


def test_guarded_variables_may_live_beside_new_ones():
    """A variable with a guard is initialised once, however often the code runs."""
    shared = (var("shared"), var("_ZGV6shared"))
    new = objmap("a.o", *start("shared", "_ZGV6shared", "x"), *shared, var("x"))
    made = plan(objmap("a.o", *shared), new)
    assert made.refusals == [] and made.initialisers == [Initialiser("a.o", START)]
    assert refused(plan(objmap("a.o", var("shared")), new)) == [("dynamic-initialiser", "a.o", START)], "its guard is new"


def test_what_a_comdat_group_initialises_runs_in_one_unit():
    def unit(obj, content="1"):
        init = SpecialEntry(".init_array", 8, content, ["shared", "_ZGV6shared", "make"], comdat="shared")
        return objmap(obj, fn("make", comdat="make"), var("shared", comdat="shared"), var("_ZGV6shared", comdat="shared"), init)

    made = make_plan(from_image(image(objmap("a.o"), objmap("b.o"))), {"a.o": unit("a.o"), "b.o": unit("b.o")})
    assert made.refusals == [] and made.initialisers == [Initialiser("a.o", None, "shared")]
    assert plan(unit("a.o"), unit("a.o")).initialisers == []
    assert refused(plan(unit("a.o"), unit("a.o", "2"))) == [("dynamic-initialiser", "a.o", "shared")]


def test_removed_objects_are_no_reason_to_refuse():
    made = plan(objmap("a.o", *start("x", "y"), var("x"), var("y")), objmap("a.o", *start("y", content="2"), var("y")))
    assert made.refusals == [] and made.initialisers == [] and any("no longer initialised by code: x" in n for n in made.notes)
    made = plan(objmap("a.o", *LIVING, fn("f", "1")), objmap("a.o", fn("f", "2")))
    assert made.refusals == [] and any("no longer initialised by code: x" in n for n in made.notes)


def test_initialisation_that_reaches_what_the_patch_changes_is_refused():
    old = objmap("a.o", fn("f", "1"), fn("g", refs=["f"]))
    made = plan(old, objmap("a.o", fn("f", "2"), fn("g", refs=["f"]), *start("x", "g"), var("x")))
    assert refused(made) == [("initialised-by-changed", "a.o", "")] and "reaches f" in made.refusals[0].reason


def test_constructors_beside_initialisers_are_still_refused_by_name():
    old = objmap("a.o", fn("early~a.o"), SpecialEntry(".init_array", 8, "1", [START, "early~a.o"]), fn(START))
    more = SpecialEntry(".init_array", 16, "2", [START, "early~a.o", "late~a.o"])
    made = plan(old, objmap("a.o", fn("early~a.o"), fn("late~a.o"), fn(START), more))
    assert refused(made) == [("constructor", "a.o", ".init_array")] and "late" in made.refusals[0].reason


def test_without_a_cxx_library_nothing_could_catch_what_a_constructor_throws():
    new = objmap("a.o", *LIVING)
    made = make_plan(from_image(image(objmap("a.o"), needed=["libc.so.6"])), {"a.o": new})
    assert refused(made) == [("no-cxx-library", "a.o", "")]
