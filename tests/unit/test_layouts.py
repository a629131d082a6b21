"""Layouts as text: which changes objects made before survive, and how a change is told."""

from __future__ import annotations

import pytest

from hotreload_tool.layouts import compatible, explain, virtual_conflict

RESERVED = "struct 40 align 8\n0 int a\n8 unsigned char hotreload_reserve[32]"

TAKEN = {
    "one member": "struct 40 align 8\n0 int a\n8 long int b\n16 unsigned char hotreload_reserve[24]",
    "small ones": "struct 40 align 8\n0 int a\n8 char b\n9.0:3 unsigned int c\n16 unsigned char hotreload_reserve[24]",
    "all of it": "struct 40\n0 int a\n8 void *p[4]",
    "behind what is left": "struct 40 align 8\n0 int a\n8 unsigned char hotreload_reserve[24]\n32 int (*f)(struct s)",
    "divided": "struct 40 align 8\n0 int a\n8 unsigned char hotreload_reserve[16]\n24 unsigned char hotreload_reserve[16]",
}
REFUSED = {
    "larger": "struct 48 align 8\n0 int a\n8 long int b\n16 unsigned char hotreload_reserve[32]",
    "in the gap before it": "struct 40 align 8\n0 int a\n4 int b\n8 unsigned char hotreload_reserve[32]",
    "bits before it": "struct 40 align 8\n0 int a\n7.7:9 unsigned int b\n16 unsigned char hotreload_reserve[24]",
    "another member renamed": "struct 40 align 8\n0 int z\n8 long int b\n16 unsigned char hotreload_reserve[24]",
    "another member retyped": "struct 40 align 8\n0 float a\n8 unsigned char hotreload_reserve[32]",
    "another alignment": "struct 40 align 16\n0 int a\n8 long int b\n16 unsigned char hotreload_reserve[24]",
    "a union now": "union 40 align 8\n0 int a\n0 long int b",
    "a base": "struct 40 align 8\n0 base struct B\n0 int a\n8 unsigned char hotreload_reserve[32]",
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_lies_in_the_reserve_is_compatible(case: str) -> None:
    found = compatible("struct s", RESERVED, TAKEN[case])
    assert found is not None and found.note.startswith("struct s takes from its reserve: ")


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_lie_in_the_reserve_is_not(case: str) -> None:
    assert compatible("struct s", RESERVED, REFUSED[case]) is None


def test_a_reserve_with_a_gap_behind_it_counts_for_nothing() -> None:
    old = "struct 48\n0 long int a\n8 unsigned char hotreload_reserve[8]\n32 long double d"
    new = "struct 48\n0 long int a\n8 long int b\n32 long double d"
    assert compatible("struct s", old, new) is None
    assert compatible("struct s", old.replace("[8]", "[24]"), new) is not None


def test_a_struct_that_fits_into_registers_has_no_reserve() -> None:
    old, new = "struct 16 align 8\n0 long int a\n8 unsigned char hotreload_reserve[8]", "struct 16\n0 long int a\n8 double d"
    assert compatible("struct s", old, new) is None


@pytest.mark.parametrize("wide", ["long double d", "__int128 i", "struct inner s", "int vector[4] v", "struct inner s[2]"])
def test_a_member_that_may_want_more_alignment_than_objects_have(wide: str) -> None:
    old = "struct 48 align 8\n0 long int a\n8 long int b\n16 unsigned char hotreload_reserve[32]"
    assert compatible("struct s", old, f"struct 48\n0 long int a\n8 long int b\n16 {wide}") is None
    assert compatible("struct s", old, "struct 48\n0 long int a\n8 long int b\n16 long int c[4]") is not None
    assert compatible("struct s", old, "struct 48\n0 long int a\n8 long int b\n16 struct inner *p") is not None


def test_enumerators_may_be_added_but_not_change() -> None:
    old = "enum 4 unsigned int\nRED = 0\nGREEN = 1"
    assert compatible("enum e", old, "enum 4 unsigned int\nRED = 0\nGREEN = 1\nBLUE = 2") is not None
    assert compatible("enum e", old, "enum 4 unsigned int\nRED = 0\nBLUE = 1\nGREEN = 2") is None
    assert compatible("enum e", old, "enum 4 unsigned int\nRED = 0") is None
    assert compatible("enum e", old, "enum 1 unsigned char\nRED = 0\nGREEN = 1\nBLUE = 2") is None


def test_explanations() -> None:
    assert explain("struct 8\n0 int a\n4 int b", "struct 8\n0 int b\n4 int a") == (
        "had `int a` at 0, `int b` at 4; has `int b` at 0, `int a` at 4"
    )
    assert explain("struct 4\n0 int a", "struct 8\n0 int a\n4 P p #0123456789abcdef") == (
        "was struct 4 bytes, is struct 8 bytes; new: `P p` at 4"
    )
    assert explain("enum 4 int\nA = 0\nB = 1", "enum 4 int\nA = 0\nB = 2") == "had `B = 1`; has `B = 2`"
    many = "struct 40\n" + "\n".join(f"{4 * i} int m{i}" for i in range(10))
    assert explain("struct 40", many) == "new: `int m0` at 0, `int m1` at 4, `int m2` at 8 and 7 more"
    assert explain(None, many) == "its members changed"


def test_places_of_virtual_functions() -> None:
    old = "2 _ZN1A1fEv\n3 _ZN1A1gEv"
    assert virtual_conflict(old, "2 _ZN1A1fEv\n3 _ZN1A1gEv\n4 _ZN1A1hEv") is None
    assert virtual_conflict(old, "0 _ZN1A1eEv\n" + old) is None, "an override; the size of the table tells a new one"
    assert virtual_conflict(old, "3 _ZN1A1gEv") is None, "an override removed"
    assert virtual_conflict(old, "2 _ZN1A1gEv\n3 _ZN1A1fEv") == "place 2 of its table was _ZN1A1fEv, is _ZN1A1gEv"
    assert virtual_conflict(old, "3 _ZN1A1fEv\n4 _ZN1A1gEv") == "_ZN1A1fEv moved from place 2 of its table to 3"
    assert virtual_conflict(old, "2 _ZN1A1fEi\n3 _ZN1A1gEv") is not None
    assert virtual_conflict("-1 f", "-1 f\n-1 g") == "their places are not known"
    assert virtual_conflict("2 f\n2 g", "2 f") == "their places are not known", "two classes of one name"
