"""Types from DWARF: from data, from what gcc writes (with pyelftools as the oracle), and from damaged bytes."""

from __future__ import annotations

import dataclasses
import functools
import io
import re
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationHandler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwarfwriter import Die, Writer, address
from hotreload_tool import elf
from hotreload_tool.debuginfo import (
    DebugSection,
    DebugSections,
    DebugTypes,
    Known,
    RelaTable,
    debug_sections,
    read,
    read_object,
)

C11, CPLUSPLUS_14 = 0x1D, 0x21
SIGNATURE = 0x0123456789ABCDEF


def basics() -> list[Die]:
    """Types to refer to, by key."""
    return [
        Die("base_type", key="int", name="int", byte_size=4),
        Die("base_type", key="char", name="char", byte_size=1),
        Die("pointer_type", key="char *", type="char", byte_size=8),
        Die("structure_type", key="struct foo", signature=SIGNATURE, declaration=True),
        Die("pointer_type", key="struct foo *", type="struct foo", byte_size=8),
        Die("subroutine_type", Die("formal_parameter", type="char"), key="int (char)", type="int", prototyped=True),
        Die("pointer_type", key="int (*)(char)", type="int (char)"),
        Die(
            "array_type",
            Die("subrange_type", upper_bound=2),
            Die("subrange_type", count=5),
            key="int [3][5]",
            type="int",
        ),
        Die("pointer_type", key="int (*)[3][5]", type="int [3][5]"),
        Die("array_type", Die("subrange_type", upper_bound=3), key="char *[4]", type="char *"),
        Die("const_type", key="const char", type="char"),
        Die("pointer_type", key="const char *", type="const char"),
        Die("const_type", key="char *const", type="char *"),
        Die("const_type", key="const void"),
        Die("pointer_type", key="const void *", type="const void"),
        Die("typedef", key="num_t", name="num_t", type="int"),
        Die("typedef", key="num2_t", name="num2_t", type="num_t"),
        Die("array_type", Die("subrange_type"), key="int []", type="int"),
        Die("array_type", Die("subrange_type", upper_bound=3), key="int vector[4]", type="int", GNU_vector=True),
        Die("volatile_type", key="volatile int", type="int"),
        Die("atomic_type", key="_Atomic int", type="int"),
        Die("pointer_type", key="void *"),
    ]


PRINTED = {
    "int": "int",
    "char *": "char *",
    "struct foo": "struct foo",
    "struct foo *": "struct foo *",
    "int (*)(char)": "int (*)(char)",
    "int [3][5]": "int [3][5]",
    "int (*)[3][5]": "int (*)[3][5]",
    "char *[4]": "char *[4]",
    "const char *": "const char *",
    "char *const": "char *const",
    "const void *": "const void *",
    "num_t": "num_t{int}",
    "num2_t": "num2_t{num_t{int}}",
    "int []": "int []",
    "int vector[4]": "int vector[4]",
    "volatile int": "volatile int",
    "_Atomic int": "_Atomic int",
    "void *": "void *",
}


def variable(name: str, type: str | int, **attrs: Any) -> Die:
    return Die("variable", name=name, type=type, location=address(f".data.{name}"), **attrs)


def function(name: str, *children: Die, **attrs: Any) -> Die:
    return Die("subprogram", *children, **{"name": name, "low_pc": 0, **attrs})


def parameter(type: str) -> Die:
    return Die("formal_parameter", type=type, location=b"\x55")


def types_of(*dies: Die, language: int = C11, version: int = 5, forms: dict[str, str] | None = None) -> DebugTypes:
    w = Writer(version, {"low_pc": "addr", **(forms or {})})
    w.type_unit(SIGNATURE, Die("structure_type", name="foo", byte_size=4))
    w.compile_unit(*basics(), *dies, language=language)
    found = read(w.sections())
    assert found.typed, found.reason
    return found


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(("key", "text"), PRINTED.items())
def test_printed_types(version: int, key: str, text: str) -> None:
    found = types_of(variable("v", key), version=version)
    assert found.variables == {("v", None): text}
    assert found.places == {(".data.v", 0): text}
    assert list(found.units.values()) == ["struct foo"] and list(found.layouts.values()) == ["struct 4"]


@pytest.mark.parametrize("form", ["strp", "string", "strx1", "strx2", "strx"])
def test_forms_of_names(form: str) -> None:
    found = types_of(variable("v", "num_t"), forms={"name": form})
    assert found.variables == {("v", None): "num_t{int}"} and list(found.units.values()) == ["struct foo"]


def test_signatures_of_functions() -> None:
    found = types_of(
        function("plain", parameter("int"), parameter("struct foo *"), type="int", prototyped=True),
        function("nothing", prototyped=True),
        function("old"),
        function("dots", parameter("const char *"), Die("unspecified_parameters"), type="char *", prototyped=True),
        function("returns_pointer_to_function", parameter("num_t"), type="int (*)(char)", prototyped=True),
        Die("subprogram", Die("formal_parameter", type="int"), name="only_declared", declaration=True, type="int"),
        function(
            "with_locals",
            parameter("int"),
            Die("variable", name="x", type="char", location=b"\x91\x00"),
            Die("formal_parameter", type="char"),
            prototyped=True,
        ),
    )
    assert found.signatures == {
        "plain": "int (int, struct foo *)",
        "nothing": "void (void)",
        "old": "void ()",
        "dots": "char *(const char *, ...)",
        "returns_pointer_to_function": "int (*(num_t{int}))(char)",
        "with_locals": "void (int)",
    }
    assert found.variables == {}


def test_an_instance_out_of_line_has_its_origins_signature() -> None:
    found = types_of(
        Die(
            "subprogram",
            Die("formal_parameter", name="a", type="int"),
            Die("formal_parameter", name="b", type="char"),
            key="g",
            name="g",
            type="int",
            inline=1,
            prototyped=True,
        ),
        Die("subprogram", Die("formal_parameter", const_value=1), low_pc=0, abstract_origin="g"),
    )
    assert found.signatures == {"g": "int (int, char)"}


def test_mangled_functions_have_their_return_type() -> None:
    found = types_of(
        function("f", parameter("int"), linkage_name="_Z1fi"),
        function("c_function", parameter("int"), type="int"),
        Die("namespace", function("c_in_namespace"), name="ns"),
        function("g", linkage_name="_Z1gv", type="struct foo"),
        function("S", linkage_name="_ZN1SC2Ev"),
        function("of_library", linkage_name="_ZSt10of_libraryv", type="int"),
        Die("subprogram", name="h", key="h", linkage_name="_Z1hv", declaration=True, type="char"),
        Die("subprogram", key="h abstract", specification="h", inline=1, type="int (*)(char)"),
        Die("subprogram", low_pc=0, abstract_origin="h abstract"),
        Die("namespace", function("in_std"), name="std"),
        function("made_up", artificial=True),
        Die(
            "structure_type",
            function("member", linkage_name="_ZN1S6memberEv", declaration=True),
            name="S",
            declaration=True,
        ),
        language=CPLUSPLUS_14,
    )
    assert found.signatures == {"_Z1fi": "void ()", "_Z1gv": "struct foo ()", "_Z1hv": "int (*())(char)",
                                "c_function": "int (int)", "c_in_namespace": "void (void)"}


def test_variables_of_cplusplus() -> None:
    found = types_of(
        Die(
            "namespace",
            Die("variable", key="decl", name="nv", linkage_name="_ZN2ns2nvE", type="int", declaration=True),
            name="ns",
        ),
        Die("variable", specification="decl", location=address("_ZN2ns2nvE")),
        Die("reference_type", key="int &", type="int"),
        Die("rvalue_reference_type", key="int &&", type="int"),
        Die("ptr_to_member_type", key="member", type="int", containing_type="struct foo"),
        variable("r", "int &"),
        variable("rr", "int &&"),
        variable("m", "member"),
        language=CPLUSPLUS_14,
    )
    assert found.variables == {
        ("_ZN2ns2nvE", None): "int",
        ("r", None): "int &",
        ("rr", None): "int &&",
        ("m", None): "int foo::*",
    }


def test_a_declaration_is_no_variable_and_an_optimised_one_has_no_place() -> None:
    found = types_of(
        Die("variable", name="v", type="int", declaration=True),
        Die("variable", name="c", type="int", const_value=3),
        Die("variable", name="r", type="int", location=b"\x50"),
    )
    assert found.variables == {} and found.places == {}


def test_static_locals_are_found_in_their_functions() -> None:
    found = types_of(
        function(
            "f",
            parameter("int"),
            variable("n", "int"),
            Die("lexical_block", Die("lexical_block", variable("deep", "char"))),
            Die("call_site", Die("call_site_parameter", call_value=address(".rodata.str1.1", 4))),
            Die("inlined_subroutine", variable("of_another", "char")),
            prototyped=True,
        ),
        function("g", Die("variable", name="n", type="char *", location=address(".bss", 16)), prototyped=True),
        function("h", Die("variable", name="t", type="int", location=address(".tbss", 0, tls=True)), sibling=False),
    )
    assert found.variables == {("n", "f"): "int", ("deep", "f"): "char", ("n", "g"): "char *", ("t", "h"): "int"}
    assert found.places[".bss", 16] == "char *" and found.places[".data.n", 0] == "int"


@pytest.mark.parametrize("sibling", [True, False])
def test_addresses_by_index_and_static_locals_before_parameters(sibling: bool) -> None:
    """As clang has them: DW_OP_addrx, no DW_AT_sibling, and what an inlined function holds stays that function's."""
    inlined = Die("inlined_subroutine", Die("variable", name="theirs", type="int", location=b"\xa1\x01"), sibling=sibling)
    body = [Die("variable", name="n", type="char", location=b"\xa1\x01"), parameter("int"), inlined,
            Die("lexical_block", Die("variable", name="deep", type="int", location=b"\xa1\x02"), sibling=sibling),
            Die("variable", name="part", type="int", location=b"\xa1\x02\x93\x02")]  # fmt: skip
    w = Writer(forms={"low_pc": "addr"})
    w.compile_unit(
        *basics(), Die("variable", name="v", type="char *", location=b"\xa1\x00"),
        function("f", *body, type="int", prototyped=True, sibling=sibling),
        language=C11, addr_base=16)  # fmt: skip
    sections = w.sections()
    sections.addr = DebugSection(bytes(64), {16: ("v", 0), 24: (".bss", 4), 32: (".bss", 8)})
    found = read(sections)
    assert found.typed, found.reason
    assert found.signatures == {"f": "int (int)"}
    assert found.variables == {("v", None): "char *", ("n", "f"): "char", ("deep", "f"): "int"}
    assert found.places == {("v", 0): "char *", (".bss", 4): "char", (".bss", 8): "int"}


def test_two_static_locals_of_one_name() -> None:
    found = types_of(
        function("f", Die("lexical_block", variable("n", "int")), Die("lexical_block", variable("n", "char")))
    )
    assert found.variables == {("n", "f"): "int or char"}


def test_bodies_without_statics_are_stepped_over() -> None:
    """A body may hold what we don't understand, as long as nothing of ours is in it."""
    body = Die("lexical_block", Die("variable", name="x", type="int", location=b"\x91\x00"))
    w = Writer(forms={"low_pc": "addr"})
    w.compile_unit(
        *basics(), function("f", parameter("int"), body, prototyped=True), variable("after", "int"), language=C11
    )
    sections = w.sections()
    clean = read(sections)
    data = bytearray(sections.info[0].data)
    at = data.index(b"\x02\x91\x00")
    data[at - 8] = 0x7F  # an abbreviation code that does not exist
    damaged = read(dataclasses.replace(sections, info=[DebugSection(bytes(data), sections.info[0].relocations)]))
    assert clean.typed and damaged == clean


# ---- names of type units ------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_names_of_type_units(version: int) -> None:
    w = Writer(version)
    w.type_unit(1, Die("structure_type", name="plain", byte_size=1))
    w.type_unit(2, Die("union_type", name="u", byte_size=1))
    w.type_unit(3, Die("enumeration_type", Die("enumerator", name="A", const_value=0), name="e", byte_size=4))
    w.type_unit(4, Die("class_type", byte_size=1), language=C11)
    w.type_unit(
        5,
        Die("structure_type", Die("member", name="x", type="i"), Die("member", name="p", type="p"), byte_size=16),
        Die("base_type", key="i", name="int"),
        Die("pointer_type", key="p", type="i"),
    )
    w.type_unit(
        6,
        Die(
            "namespace",
            Die("structure_type", name="Other", declaration=True),
            Die(
                "namespace",
                Die(
                    "class_type",
                    Die("structure_type", name="In", key="decl", declaration=True),
                    name="Out",
                    declaration=True,
                ),
            ),
        ),
        Die("structure_type", name="In", specification="decl", key="it"),
        type_key="it",
    )
    w.type_unit(7, Die("enumeration_type", *[Die("enumerator", name=f"E{i}", const_value=i) for i in range(9)]))
    w.compile_unit(Die("typedef", name="T", type=4), Die("typedef", name="Plain", type=1), language=C11)
    found = read(w.sections())
    assert found.typed, found.reason
    assert list(found.units.values()) == [
        "struct plain",
        "union u",
        "enum e",
        "T",
        "struct {int x; int *p}",
        "struct (anonymous namespace)::(anonymous namespace)::Out::In",
        "enum {E0, E1, E2, E3, ...}",
    ]


def test_a_typedef_shows_what_it_stands_for() -> None:
    w = Writer()
    w.type_unit(
        1,
        Die("structure_type", Die("member", name="x", type="i"), byte_size=4),
        Die("base_type", key="i", name="int"),
    )
    w.type_unit(2, Die("structure_type", name="foo", byte_size=4))
    w.type_unit(3, Die("structure_type", Die("member", name="y", type="i")), Die("base_type", key="i", name="int"))
    w.compile_unit(
        Die("typedef", name="P", key="P", type=1),
        Die("typedef", name="foo_t", key="foo_t", type=2),
        Die("pointer_type", type="P", key="P *"),
        Die("typedef", name="nothing", key="nothing"),
        Die("pointer_type", type="nothing", key="nothing *"),
        variable("p", "P *"),
        variable("f", "foo_t"),
        variable("direct", 3),
        variable("n", "nothing *"),
        language=C11,
    )
    found = read(w.sections()).variables
    assert found == {
        ("p", None): "P{struct} *",
        ("f", None): "foo_t{struct foo}",
        ("direct", None): "struct {int y}",
        ("n", None): "nothing{void} *",
    }


def test_a_unit_that_is_missing_still_prints() -> None:
    w = Writer()
    w.compile_unit(variable("v", 0xAB), language=C11)
    assert read(w.sections()).variables == {("v", None): "type 00000000000000ab"}


# ---- compilers without type units ---------------------------------------------------------------


def own_layouts(*members: Die, size: int = 8, pad: bool = False) -> DebugTypes:
    w = Writer()
    extra = [Die("base_type", name="other", byte_size=2)] if pad else []
    w.compile_unit(
        *extra,
        *basics()[:3],
        Die("structure_type", *members, key="s", name="s", byte_size=size),
        Die("pointer_type", key="s *", type="s"),
        Die(
            "structure_type", Die("member", name="s", type="s", data_member_location=0), name="holds", byte_size=size
        ),
        Die(
            "structure_type", Die("member", name="s", type="s *", data_member_location=0), name="points", byte_size=8
        ),
        Die("typedef", name="T", type="t"),
        Die("union_type", Die("member", name="i", type="int"), key="t", byte_size=4),
        Die("enumeration_type", Die("enumerator", name="A", const_value=1), name="e", byte_size=4),
        variable("v", "s"),
        language=C11,
    )
    return read(w.sections())


def member(name: str, type: str = "int", at: int = 0) -> Die:
    return Die("member", name=name, type=type, data_member_location=at)


def test_without_type_units_layouts_are_told_too() -> None:
    one = own_layouts(member("a"), member("b", at=4))
    assert one.typed and sorted(one.units.values()) == ["T", "enum e", "struct holds", "struct points", "struct s"]
    assert one.variables == {("v", None): "struct s"}
    assert own_layouts(member("a"), member("b", at=4), pad=True).units == one.units
    layouts = {name: one.layouts[key] for key, name in one.units.items()}
    assert layouts["struct s"] == "struct 8\n0 int a\n4 int b" and layouts["struct points"] == "struct 8\n0 struct s *s"
    assert layouts["T"] == "union 4\n0 int i" and layouts["enum e"] == "enum 4\nA = 1"
    for changed, expected in (
        (own_layouts(member("a"), member("c", at=4)), {"struct s"}),
        (own_layouts(member("a"), member("b", "char", 4)), {"struct s"}),
        (own_layouts(member("a"), member("b", at=4), size=12), {"struct s", "struct holds"}),
    ):
        names = {name for key, name in changed.units.items() if key not in one.units}
        assert names == expected


def test_a_local_type_shows_its_layout_with_the_variable() -> None:
    def static_of(*members: Die) -> str:
        return types_of(
            function("f", Die("structure_type", *members, name="L", key="L", byte_size=4), variable("n", "L"))
        ).variables["n", "f"]

    one = static_of(member("a"))
    assert one.startswith("struct L #") and static_of(member("a")) == one
    assert static_of(member("b")) != one


# ---- damage -------------------------------------------------------------------------------------


def test_what_is_not_understood_is_untyped_with_a_reason() -> None:
    w = Writer()
    w.compile_unit(*basics(), variable("v", "int"), language=C11)
    good = w.sections()
    data, relocations = good.info[0].data, good.info[0].relocations

    def reason(abbrev: bytes = good.abbrev, info: bytes = data, strings: bytes = good.str) -> str:
        found = read(DebugSections(abbrev=abbrev, str=strings, info=[DebugSection(info, relocations)]))
        assert found == DebugTypes(reason=found.reason)
        return found.reason

    assert "there is none" in read(DebugSections()).reason
    assert "64-bit" in reason(info=b"\xff\xff\xff\xff" + data[4:])
    assert "runs over the end" in reason(info=data[:-1])
    assert "version 3" in reason(info=data[:4] + b"\3\0" + data[6:])
    assert "split DWARF" in reason(info=data[:6] + b"\4" + data[7:])
    assert "not 8 bytes" in reason(info=data[:7] + b"\4" + data[8:])
    assert "outside .debug_abbrev" in reason(abbrev=b"")
    assert "truncated" in reason(abbrev=good.abbrev[:-3])
    assert "no abbreviation" in reason(info=data[:12] + b"\x77" + data[13:])
    assert "no string" in reason(strings=b"")
    assert "unsupported form 0x16" in reason(abbrev=b"\1\x11\1\3\x16\0\0\0")
    assert "64 bits" in reason(abbrev=b"\xff" * 20)


def test_types_that_go_in_circles_are_untyped() -> None:
    w = Writer()
    w.compile_unit(
        Die("pointer_type", key="a", type="b"), Die("const_type", key="b", type="a"), variable("v", "a"), language=C11
    )
    assert "deep" in read(w.sections()).reason
    w = Writer()
    w.type_unit(1, Die("structure_type", Die("member", name="m", type=2)))
    w.type_unit(2, Die("structure_type", Die("member", name="m", type=1)))
    w.compile_unit(language=C11)
    assert "deep" in read(w.sections()).reason


def test_types_that_double_at_each_step_stay_short() -> None:
    w = Writer()
    chain = [Die("base_type", key="t0", name="int")]
    for i in range(1, 40):
        both = [Die("formal_parameter", type=f"t{i - 1}"), Die("formal_parameter", type=f"t{i - 1}")]
        chain.append(Die("subroutine_type", *both, key=f"t{i}", type="t0"))
    w.compile_unit(*chain, variable("v", "t39"), language=C11)
    found = read(w.sections())
    assert found.typed and len(found.variables["v", None]) < 1000
    w = Writer()
    chain[0].attrs["name"] = "long"
    w.compile_unit(*chain, variable("v", "t39"), language=C11)
    assert read(w.sections()).variables != found.variables


def test_a_sibling_that_points_backwards_is_damage() -> None:
    w = Writer()
    w.compile_unit(Die("namespace", Die("base_type", name="x"), name="std"), language=CPLUSPLUS_14)
    sections = w.sections()
    data = bytearray(sections.info[0].data)
    at = data.index(bytes([data[-1]]) * 0 + (len(data) - 1).to_bytes(4, "little"))
    data[at : at + 4] = (12).to_bytes(4, "little")
    found = read(dataclasses.replace(sections, info=[DebugSection(bytes(data), sections.info[0].relocations)]))
    assert not found.typed and "DW_AT_sibling" in found.reason


# ---- relocations --------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.integers(0, 2**64 - 1), st.tuples(st.integers(0, 2**32 - 1), st.integers(-(2**63), 2**63 - 1)), max_size=40
    ),
    st.randoms(),
)
def test_a_rela_table_is_a_dict(entries: dict[int, tuple[int, int]], random: Any) -> None:
    rows = [(offset, symbol << 32 | 1, addend) for offset, (symbol, addend) in entries.items()]
    random.shuffle(rows)
    raw = b"".join(
        o.to_bytes(8, "little") + i.to_bytes(8, "little") + a.to_bytes(8, "little", signed=True) for o, i, a in rows
    )
    table = RelaTable(raw, str)
    assert all(table.get(offset) == (str(symbol), addend) for offset, (symbol, addend) in entries.items())
    assert all(table.addend(offset) == addend for offset, (_, addend) in entries.items())
    assert table.get(-1) is None and all(table.get(o + 1) is None for o in entries if o + 1 not in entries)


def test_a_rela_table_ignores_a_broken_tail() -> None:
    assert RelaTable(bytes(24) + b"abc", str).get(0) == ("0", 0)


def test_compressed_sections() -> None:
    w = Writer()
    w.compile_unit(*basics(), variable("v", "int"), language=C11)
    plain = w.sections()

    def section(name: str, data: bytes, flags: int = 0) -> Any:
        if flags:
            data = (1).to_bytes(8, "little") + len(data).to_bytes(8, "little") + bytes(8) + zlib.compress(data)
        return SimpleNamespace(index=0, name=name, type=1, flags=flags, info=0, data=data)

    def found(info: Any) -> DebugTypes:
        sections = debug_sections(
            [section(".debug_abbrev", plain.abbrev, 0x800), section(".debug_str", plain.str, 0x800), info], []
        )
        sections.info[0].relocations = plain.info[0].relocations
        return read(sections)

    packed = section(".debug_info", plain.info[0].data, 0x800)
    assert found(packed) == read(plain) and read(plain).typed
    for damage in (
        b"\2" + packed.data[1:],
        packed.data[:-9],
        packed.data[:8] + b"\xff" * 8 + packed.data[16:],
        b"\1",
    ):
        packed.data = damage
        assert "debug_info" in read_object([packed], []).reason


# ---- what gcc writes ----------------------------------------------------------------------------

C_SOURCE = """
#include <stddef.h>
#include <stdio.h>
typedef struct { int x, y; } P;
struct foo { int a; struct foo *next; P p; struct { int z; } anon; unsigned bits : 3; };
enum col { RED, GREEN };
typedef int (*cb)(const struct foo *, ...);
union u { int a; float b; };
static struct foo arr[10];
const char *const names[] = {"a", "b"};
P pp; enum col cc; union u uu; cb callback; cb table[3][4]; volatile int vi; size_t sz; extern int elsewhere;
__thread int tls;
static inline int inl(struct foo *f) { static int cnt; return cnt++ + f->a; }
int f(int a, struct foo *b)
{ static P loc; static const char tab[3] = {1, 2, 3}; loc.x++; return inl(b) + loc.x + tab[a & 1]; }
static __attribute__((noinline)) void g(void (*h)(void), enum col c, int n, ...)
{ static long q; q += c; h(); printf("%ld", q); { static __thread short t; t++; } }
void *m(const volatile void *p, size_t n, char buf[n])
{ g((void (*)(void))p, RED, 1); return (void *)&arr[n + elsewhere]; }
_Complex double cd; _Bool bb; __int128 ii; struct { int un; } unnamed_var; int *restrict rp; _Atomic int at;
int vec __attribute__((vector_size(16)));
"""

CC_SOURCE = """
#include <map>
#include <string>
#include <vector>
namespace ns {
struct Foo { int a; virtual ~Foo(); static int s; template <class T> T m(T t) { return t; }
             struct Inner { int q; }; Inner in; enum class E { A }; E e; };
int Foo::s; Foo::~Foo() {}
static Foo loc; int nv = 3;
namespace { Foo hidden; struct AnonS { int x; }; AnonS as; }
Foo::Inner inn; std::vector<Foo *> vec; template <class T> struct T1 { T t; }; T1<int> ti;
inline namespace v1 { int inl_ns; }
}
extern "C" { int cfun(ns::Foo *f, int a) { return f->a + a; } int cvar; }
int user(int a, std::string s) { static std::map<int, std::string> counter; counter[a] = s;
  struct L { int a; }; static L l; l.a++;
  return ns::loc.m<long>(a) + counter.size() + s.size() + ns::hidden.a + ns::as.x + l.a; }
thread_local int tl; typedef struct { int q; } TDS; TDS tds; extern const int cst[3] = {1, 2, 3};
int (*fptr)(int, ns::Foo &); int ns::Foo::*memptr; void (ns::Foo::*pmf)(int); int &ref = ns::nv;
int main() { return user(1, "x"); }
"""

TYPE_UNITS = "-fdebug-types-section"
BUILDS = [
    (compiler, source, f"-gdwarf-{version}", optimise)
    for compiler in ("gcc", "clang")
    for source in ("c", "cc")
    for version in (4, 5)
    for optimise in ("-O0", "-O2")
]


@functools.cache
def compiled(source: str, *flags: str, suffix: str = "c", folder: str = "a", compiler: str = "gcc") -> bytes:
    found = shutil.which(compiler)
    if found is None:
        pytest.skip(f"needs {compiler}")
    with tempfile.TemporaryDirectory() as base:
        where = Path(base) / folder
        where.mkdir()
        (where / f"x.{suffix}").write_text(source)
        subprocess.run([found, *flags, "-w", "-c", f"x.{suffix}", "-o", "x.o"], cwd=where, check=True, timeout=300)
        return (where / "x.o").read_bytes()


def types_in(blob: bytes) -> DebugTypes:
    obj = elf.parse(blob)
    return read_object(obj.sections, obj.symbols)


def build(kind: str, *flags: str, compiler: str = "gcc") -> bytes:
    return compiled(C_SOURCE if kind == "c" else CC_SOURCE, TYPE_UNITS, *flags, suffix=kind, compiler=compiler)


@pytest.fixture(params=BUILDS, ids=" ".join)
def built_object(request: pytest.FixtureRequest) -> bytes:
    compiler, kind, *flags = request.param
    return build(kind, *flags, compiler=compiler)


LIBRARY = ("_ZSt", "_ZNSt", "_ZNKSt", "_ZN9__gnu_cxx", "_ZNK9__gnu_cxx")


class Oracle:
    """The same questions, answered slowly by pyelftools from every DIE."""

    def __init__(self, blob: bytes) -> None:
        recipes: Any = RelocationHandler._RELOCATION_RECIPES_X64
        recipes.setdefault(21, recipes[10])  # DTPOFF32 and DTPOFF64: S + A, counted from the thread's block
        recipes.setdefault(17, recipes[1])
        self.dwarf: Any = ELFFile(io.BytesIO(blob)).get_dwarf_info()
        self.units = [u for u in self.dwarf.iter_CUs() if "compile_unit" in str(u.get_top_DIE().tag)]
        self.dies = [die for unit in self.units for die in unit.iter_DIEs()]

    def origin(self, die: Any, attribute: str) -> Any:
        """The DIE that has `attribute`, following origins and specifications."""
        while attribute not in die.attributes:
            link = next((a for a in ("DW_AT_abstract_origin", "DW_AT_specification") if a in die.attributes), None)
            if link is None:
                return None
            die = die.get_DIE_from_attribute(link)
        return die

    def name(self, die: Any) -> str | None:
        for attribute in ("DW_AT_linkage_name", "DW_AT_name"):
            holder = self.origin(die, attribute)
            if holder is not None:
                return str(holder.attributes[attribute].value.decode())
        return None

    def functions(self) -> dict[str, int]:
        """Name -> number of parameters, of functions with code."""
        found = {}
        for die in self.dies:
            if die.tag == "DW_TAG_subprogram" and {"DW_AT_low_pc", "DW_AT_ranges"} & die.attributes.keys():
                origin = (
                    die.get_DIE_from_attribute("DW_AT_abstract_origin")
                    if "DW_AT_abstract_origin" in die.attributes
                    else die
                )
                if "DW_AT_artificial" not in die.attributes:
                    found[self.name(die) or ""] = sum(
                        c.tag == "DW_TAG_formal_parameter" for c in origin.iter_children()
                    )
        return found

    def returning(self) -> set[str]:
        """Mangled names of functions with code that return something."""
        found = set()
        for die in self.dies:
            if die.tag == "DW_TAG_subprogram" and {"DW_AT_low_pc", "DW_AT_ranges"} & die.attributes.keys():
                name = self.name(die) or ""
                if name.startswith("_Z") and self.origin(die, "DW_AT_type") is not None:
                    found.add(name)
        return found

    def variables(self) -> set[tuple[str | None, str | None]]:
        """(name, function) of variables at a fixed address or in the thread's block."""
        found = set()
        for die in self.dies:
            location = die.attributes.get("DW_AT_location")
            if die.tag == "DW_TAG_variable" and location is not None and location.form == "DW_FORM_exprloc":
                # DW_OP_addr, DW_OP_const8u and DW_OP_addrx, unless DW_OP_piece follows: clang may keep parts of a struct.
                if location.value[0] in (0x03, 0x0E, 0xA1) and 0x93 not in (location.value[2:3] + location.value[9:10]):
                    found.add((self.name(die), self.function(die)))
        return found

    def function(self, die: Any) -> str | None:
        while die is not None and die.tag != "DW_TAG_subprogram":
            die = die.get_parent()
        return None if die is None else self.name(die) or ""

    def type_units(self) -> list[bytes]:
        """The type's own name, of every type unit."""
        found = []
        sources = [self.dwarf.iter_TUs()] if self.dwarf.debug_types_sec else [self.dwarf.iter_CUs()]
        for unit in (u for source in sources for u in source):
            if str(unit.get_top_DIE().tag) == "DW_TAG_type_unit":
                header = unit.header
                base = unit.tu_offset if hasattr(unit, "tu_offset") else unit.cu_offset
                name = next(d for d in unit.iter_DIEs() if d.offset == base + header["type_offset"]).attributes.get(
                    "DW_AT_name"
                )
                found.append(name.value if name else b"")
        return found


def merged(blob: bytes) -> bytes:
    """The object with its many .debug_info joined into one by `ld -r`: pyelftools reads one section of a name."""
    ld = shutil.which("ld")
    if ld is None:
        pytest.skip("needs binutils' ld")
    with tempfile.TemporaryDirectory() as base:
        (Path(base) / "x.o").write_bytes(blob)
        subprocess.run([ld, "-r", "--force-group-allocation", "x.o", "-o", "y.o"], cwd=base, check=True, timeout=60)
        return (Path(base) / "y.o").read_bytes()


def test_units_are_those_that_pyelftools_sees(built_object: bytes) -> None:
    joined = merged(built_object)
    found, again, oracle = types_in(built_object), types_in(joined), Oracle(joined)
    assert found.typed, found.reason
    assert again.units == found.units and again.signatures == found.signatures and again.variables == found.variables
    expected = [name.decode() for name in oracle.type_units()]
    printed = sorted(found.units.values())
    assert all(any(name in text for text in printed) for name in expected)
    defined = {oracle.name(die) for die in oracle.dies if die.tag == "DW_TAG_structure_type"}     # of what is in no type unit
    assert {*expected, *defined} >= {text.removeprefix("struct ") for text in printed if re.fullmatch(r"struct \w+", text)}


def test_functions_and_variables_are_those_that_pyelftools_sees(built_object: bytes) -> None:
    found, oracle = types_in(built_object), Oracle(merged(built_object))
    plain = {name: s for name, s in found.signatures.items() if not name.startswith("_Z")}
    functions = {name: count for name, count in oracle.functions().items() if not name.startswith("_Z")}
    assert {n: _count(s) for n, s in plain.items()} == functions
    returned = {name for name, s in found.signatures.items() if name.startswith("_Z") and s != "void ()"}
    assert returned == oracle.returning() - {name for name in oracle.returning() if name.startswith(LIBRARY)}
    assert functions.keys() >= {"cfun", "main"} or functions.keys() >= {"f", "g", "m"}
    names = {(name, f) for name, f in oracle.variables() if not _in_library(f) and not (name or "").startswith("_ZSt")}
    assert {key for key in found.variables if not _in_library(key[1])} == names


def _count(signature: str) -> int:
    """Parameters in a printed signature whose parameters have no parentheses of their own but `(void)`."""
    inside = signature[signature.index("(") + 1 : -1].replace("void (*)(void)", "pointer")
    return 0 if inside in ("void", "") else len([p for p in inside.split(", ") if p != "..."])


def _in_library(function: str | None) -> bool:
    return function is not None and "user" not in function and function not in ("f", "g", "inl", "m")


@pytest.mark.parametrize("flags", [("-gdwarf-4", "-O0"), ("-gdwarf-5", "-O0"), ("-gdwarf-5", "-O0", "-fdata-sections")])
def test_clang_types_as_printed(flags: tuple[str, ...]) -> None:
    """clang puts static locals before parameters, addresses into .debug_addr, and tells no siblings."""
    found = types_in(build("c", *flags, compiler="clang"))
    assert found.typed, found.reason
    assert found.signatures["f"] == "int (int, struct foo *)"
    assert found.signatures["g"] == "void (void (*)(void), enum col, int, ...)"
    assert found.variables["arr", None] == "struct foo [10]" and found.variables["pp", None] == "P{struct}"
    assert found.variables["loc", "f"] == "P{struct}" and found.variables["tab", "f"] == "const char [3]"
    assert found.variables["cnt", "inl"] == "int" and found.variables["q", "g"] == "long"
    assert found.variables["tls", None] == "int" and found.variables["t", "g"] == "short"
    places = {name: text for (name, _), text in found.places.items()}
    assert places["pp"] == "P{struct}" and set(found.places.values()) == set(found.variables.values())


@pytest.mark.parametrize(
    "flags",
    [
        ("-gdwarf-4", "-O0"),
        ("-gdwarf-5", "-O2"),
        ("-gdwarf-5", "-O2", "-ffunction-sections", "-fdata-sections", "-gz=zlib"),
    ],
)
def test_gcc_types_as_printed(flags: tuple[str, ...]) -> None:
    found = types_in(build("c", *flags))
    assert found.typed, found.reason
    assert found.signatures["f"] == "int (int, struct foo *)"
    assert found.signatures["g"] == "void (void (*)(void), enum col, int, ...)"
    assert found.signatures["m"] == "void *(volatile const void *, size_t{long unsigned int}, char *)"
    assert found.variables["arr", None] == "struct foo [10]"
    assert found.variables["names", None] == "const char *const [2]"
    assert found.variables["pp", None] == found.variables["loc", "f"] == "P{struct}"
    assert found.variables["table", None] == "cb{int (*)(const struct foo *, ...)} [3][4]"
    assert found.variables["unnamed_var", None] == "struct {int un}"
    assert found.variables["tls", None] == "int" and found.variables["cnt", "inl"] == "int"
    assert found.variables["q", "g"] == "long int" and found.variables["t", "g"] == "short int"
    assert ("elsewhere", None) not in found.variables
    assert {"struct foo", "P", "enum col", "union u", "struct {int z}"} <= set(found.units.values())


def test_gcc_types_of_cplusplus_as_printed() -> None:
    found = types_in(build("cc", "-gdwarf-5", "-O2"))
    signatures = {name: s for name, s in found.signatures.items() if name in ("cfun", "main") or "user" in name}
    assert signatures.pop("_Z4useriNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE") == "int ()"
    assert signatures == {"cfun": "int (struct ns::Foo *, int)", "main": "int (void)"}
    assert found.variables["_ZN2ns3Foo1sE", None] == "int" and found.variables["cvar", None] == "int"
    assert found.variables["_ZN2ns3innE", None] == "struct ns::Foo::Inner"
    assert found.variables["pmf", None] == "void (ns::Foo::*)(struct ns::Foo *, int)"
    assert {"struct ns::Foo", "enum ns::Foo::E", "struct ns::(anonymous namespace)::AnonS", "TDS"} <= set(
        found.units.values()
    )
    assert any(place[0].endswith("_ZL6hidden") or text == "struct ns::Foo" for place, text in found.places.items())


def changed_by(
    old: str, new: str, *flags: str, suffix: str = "c", folder: str = "a"
) -> tuple[set[str], DebugTypes, DebugTypes]:
    source = C_SOURCE if suffix == "c" else CC_SOURCE
    assert old in source
    before = types_in(compiled(source, *flags, "-g", "-O2", suffix=suffix))
    after = types_in(compiled(source.replace(old, new), *flags, "-g", "-O2", suffix=suffix, folder=folder))
    assert before.typed and after.typed
    return {name for signature, name in after.units.items() if signature not in before.units}, before, after


@pytest.mark.parametrize("units", [TYPE_UNITS, "-fno-debug-types-section"])
@pytest.mark.parametrize("kind", ["c", "cc"])
def test_lines_comments_and_directories_change_nothing(units: str, kind: str) -> None:
    names, before, after = changed_by(
        "\n", "\n// a comment\n\n", units, suffix=kind, folder="another/b".replace("/", "_")
    )
    assert names == set() and after == before


@pytest.mark.parametrize("units", [TYPE_UNITS, "-fno-debug-types-section"])
def test_a_changed_struct_is_named_and_those_that_hold_it(units: str) -> None:
    names, before, after = changed_by("int x, y;", "int x, y, w;", units)
    assert names == {"P", "struct foo"}
    assert after.signatures == before.signatures and after.variables == before.variables
    names, *_ = changed_by("int z;", "short z;", units)
    assert "struct foo" in names and "P" not in names
    names, *_ = changed_by("bits : 3", "bits : 4", units)
    assert names == {"struct foo"}
    names, *_ = changed_by("RED, GREEN", "RED, BLUE, GREEN", units)
    assert names == {"enum col"}
    names, *_ = changed_by("bits : 3;", "bits : 3; unsigned : 2; unsigned more : 1;", units)
    assert names == {"struct foo"}


def layout_of(source: str, name: str, *flags: str, compiler: str = "gcc") -> tuple[str, str]:
    """(layout, virtual functions) of one type of a C++ source."""
    found = types_in(compiled(source, "-g", "-std=c++17", *flags, suffix="cc", compiler=compiler))
    assert found.typed, found.reason
    layouts = {found.layouts[key] for key, printed in found.units.items() if printed == name}
    assert len(layouts) == 1
    return layouts.pop(), found.virtuals.get(name, "")


BOX = """
struct Base { virtual ~Base() {} virtual int area(int) const { return 1; } };
typedef struct { short q; } Q;
class Box : public Base {
public:
  int area(int) const override { return a; }
  virtual void grow() {}
  int a; unsigned b : 3, c : 5; Q q; union { int i; float f; }; char text[6]; Box *next; int (*call)(Box &);
};
Box box;
"""
UNITS = ["-fdebug-types-section", "-fno-debug-types-section"]


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("version", ["-gdwarf-4", "-gdwarf-5"])
def test_layouts_as_text(version: str, units: str) -> None:
    layout, virtuals = layout_of(BOX, "class Box", version, units)
    lines = [line.partition(" #")[0].rstrip() for line in layout.split("\n")]
    assert lines == [
        "struct 48",
        "0 base struct Base",
        "8 int a",
        "12.0:3 unsigned int b",
        "12.3:5 unsigned int c",
        "14 Q q",
        "16 union {int i; float f}",
        "20 char text[6]",
        "32 class Box *next",
        "40 int (*call)(class Box &)",
    ]
    assert virtuals == "2 _ZNK3Box4areaEi\n3 _ZN3Box4growEv"
    assert layout_of(BOX, "Q", version, units)[0] == "struct 2\n0 short int q"


SAME_LAYOUT = [
    ("int a;", "int a; int twice() const { return 2 * a; }"),
    ("int a;", "int a; static int shared; typedef long T; using U = int;"),
    ("class Box : public Base {\npublic:", "struct Other; class Box : public Base {\nfriend Other;\npublic:"),
    ("int a;", "private: int a; public:"),
    ("Q q;", "typedef Q R; R q;"),
    ("int a;", "Box() = default; Box(int n) : a(n) {} int a;"),
    ("int a;", "template <class T> T as() { return T(a); } int a;"),
]
OTHER_LAYOUT = [
    ("char text[6]", "char name[6]"),
    ("int a;", "unsigned a;"),
    ("b : 3, c : 5", "b : 3, : 1, c : 4"),
    ("b : 3, c : 5", "c : 5, b : 3"),
    ("b : 3, c : 5", "b : 3, : 2, c : 5"),
    ("float f;", "int f;"),
    ("char text[6]", "char text[7]"),
    ("int (*call)(Box &)", "int (*call)(Box *)"),
    ("int a;", "int a; long more;"),
]


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("edit", SAME_LAYOUT)
def test_what_is_no_part_of_objects_is_no_layout(edit: tuple[str, str], units: str) -> None:
    assert edit[0] in BOX
    assert layout_of(BOX.replace(*edit), "class Box", units) == layout_of(BOX, "class Box", units)


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("edit", OTHER_LAYOUT)
def test_what_is_part_of_objects_is_layout(edit: tuple[str, str], units: str) -> None:
    assert edit[0] in BOX
    changed, virtuals = layout_of(BOX.replace(*edit), "class Box", units)
    layout, same = layout_of(BOX, "class Box", units)
    assert changed != layout and virtuals == same


@pytest.mark.parametrize("flags", [("-fdebug-types-section",), (), ("-gdwarf-4",)], ids=" ".join)
def test_layouts_of_clang(flags: tuple[str, ...]) -> None:
    """Signatures of clang's type units are digests of names: only the layout tells a change."""
    if shutil.which("clang") is None:
        pytest.skip("needs clang")
    layout, virtuals = layout_of(BOX, "class Box", *flags, compiler="clang")
    assert layout.split("\n")[:3] == ["struct 48 by reference", "0 base struct Base", "8 int a"]
    assert virtuals.split("\n")[-2:] == ["2 _ZNK3Box4areaEi", "3 _ZN3Box4growEv"]
    for edit in SAME_LAYOUT:
        assert layout_of(BOX.replace(*edit), "class Box", *flags, compiler="clang") == (layout, virtuals), edit
    for edit in OTHER_LAYOUT:
        assert layout_of(BOX.replace(*edit), "class Box", *flags, compiler="clang")[0] != layout, edit


def test_a_class_that_becomes_passed_by_reference_has_another_layout() -> None:
    """Its members are the same, and clang tells. GCC does not."""
    source = "struct Pair { int a, b; }; Pair pair;"
    plain, _ = layout_of(source, "struct Pair", compiler="clang")
    counted, _ = layout_of(source.replace("b; }", "b; ~Pair(); }"), "struct Pair", compiler="clang")
    assert (plain, counted) == ("struct 8\n0 int a\n4 int b", "struct 8 by reference\n0 int a\n4 int b")


def test_a_virtual_function_is_told_apart_from_the_layout() -> None:
    appended = BOX.replace("virtual void grow() {}", "virtual void grow() {} virtual void more() {}")
    layout, virtuals = layout_of(appended, "class Box")
    assert layout == layout_of(BOX, "class Box")[0]
    assert virtuals.split("\n")[-1] == "4 _ZN3Box4moreEv"


def test_layouts_carried_from_one_object_to_the_next_are_the_same() -> None:
    known: Known = {}
    for _ in range(2):
        for kind in ("c", "cc"):
            obj = elf.parse(build(kind, "-g", "-O2"))
            sections = debug_sections(obj.sections, obj.symbols)
            assert read(sections, known) == read(sections)
    assert known
    bits = elf.parse(compiled(BOX, "-g", "-O2", TYPE_UNITS, suffix="cc"))
    moved = elf.parse(compiled(BOX.replace("b : 3, c : 5", "b : 3, : 1, c : 5"), "-g", "-O2", TYPE_UNITS, suffix="cc"))
    read(debug_sections(bits.sections, bits.symbols), known)
    sections = debug_sections(moved.sections, moved.symbols)
    assert read(sections, known) == read(sections), "GCC's signatures do not tell where a bit-field lies"


LAMBDAS = """
struct Big { int v[8]; };
template <class T> struct Held { T t; static int call(Held *h, int n) { return h->t(n); } };
template <class T> __attribute__((noinline)) void keep(T t, int (*&call)(void *, int), void *&to)
{ auto h = new Held<T>{t}; to = h; call = reinterpret_cast<int (*)(void *, int)>(&Held<T>::call); }
int (*call)(void *, int); void *to;
int result(int n) { return n; }
static int own(int n) { return n + 1; }
void *address = reinterpret_cast<void *>(&own);
void make(int base, long more) { keep([base](int n) { return n + base; }, call, to); }
inline auto inner(int base) { return [base](int n) { return n * base; }; }
int user(int n) { int (*plain)(int) = [](int k) { return k + 2; }; call = reinterpret_cast<int (*)(void *, int)>(plain);
  keep(inner(n), call, to);
  struct Local { int m; __attribute__((noinline)) int get() { return m + own(3); } } local{n}; return local.get(); }
"""


def signatures_of(source: str, compiler: str, *flags: str) -> dict[str, str | None]:
    """Symbol -> signature, of every function."""
    obj = elf.parse(compiled(source, "-g", "-std=c++17", TYPE_UNITS, *flags, suffix="cc", compiler=compiler))
    found = read_object(obj.sections, obj.symbols)
    assert found.typed, found.reason
    return {s.name: found.signature(s.name, obj.sections[s.shndx].name, s.value)
            for s in obj.symbols if s.type == 2 and 0 < s.shndx < len(obj.sections)}


LAMBDA_EDITS = [
    ("[base](int n) { return n + base; }", "[base, more](int n) { return n + base; }", r"4make.*(Ul|\$_)"),
    ("[base](int n) { return n * base; }", "[base, &base](int n) { return n * base; }".replace("&base", "b = &base"),
     "5inner"),
    ("struct Local { int m;", "struct Local { long before; int m;", "5Local"),
    ("int result(int n) { return n; }", "Big result(int n) { return {{n}}; }", "^_Z6resulti$"),
    ("int own(int n) { return n + 1; }", "long own(int n) { return n + 1; }", "^_ZL3owni$"),
]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("flags", [("-O0",), ("-O2",), ("-O2", "-ffunction-sections"), ("-O0", "-gdwarf-4")], ids=" ".join)
@pytest.mark.parametrize("edit", LAMBDA_EDITS, ids=lambda edit: edit[2])
def test_what_a_cplusplus_name_does_not_tell(edit: tuple[str, str, str], flags: tuple[str, ...], compiler: str) -> None:
    """All functions whose name mentions the changed lambda or local class get another signature, and no others."""
    assert edit[0] in LAMBDAS
    before = signatures_of(LAMBDAS, compiler, *flags)
    after = signatures_of(LAMBDAS.replace(edit[0], edit[1]), compiler, *flags)
    concerned = {name for name in before if re.search(edit[2], name)}
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert concerned and changed == concerned & after.keys()
    assert all(before[name] for name in concerned)


def test_changed_declarations_show() -> None:
    _, before, after = changed_by(
        "typedef int (*cb)(const struct foo *, ...)", "typedef long (*cb)(const struct foo *, ...)", TYPE_UNITS
    )
    assert before.variables["callback", None] != after.variables["callback", None]
    _, before, after = changed_by("int f(int a, struct foo *b)", "int f(long a, struct foo *b)", TYPE_UNITS)
    assert before.signatures["f"] != after.signatures["f"] and before.signatures["m"] == after.signatures["m"]
    _, before, after = changed_by("static long q", "static int q", TYPE_UNITS)
    assert (before.variables["q", "g"], after.variables["q", "g"]) == ("long int", "int")


def test_no_debug_information() -> None:
    found = types_in(compiled("int x;"))
    assert not found.typed and "none" in found.reason


def test_split_and_old_dwarf_are_untyped() -> None:
    assert "split" in types_in(compiled("int x; int f(void) { return x; }", "-gdwarf-5", "-gsplit-dwarf")).reason
    assert "version 3" in types_in(compiled("int x; int f(void) { return x; }", "-gdwarf-3", "-gstrict-dwarf")).reason


# ---- any damage ---------------------------------------------------------------------------------


@functools.cache
def seeds() -> list[DebugSections]:
    w = Writer(forms={"low_pc": "addr"})
    w.type_unit(
        SIGNATURE,
        Die("structure_type", Die("member", name="x", type="i"), byte_size=4),
        Die("base_type", key="i", name="int"),
    )
    w.compile_unit(
        *basics(),
        *[variable(f"v{i}", key) for i, key in enumerate(PRINTED)],
        Die("structure_type", member("a"), key="own", name="own", byte_size=4),
        variable("o", "own"),
        function("f", parameter("int"), Die("lexical_block", variable("n", "int")), type="num2_t"),
        language=C11,
    )
    found = [w.sections()]
    if shutil.which("gcc"):
        for blob in (compiled(C_SOURCE, "-g", "-O2"), build("c", "-gdwarf-5", "-O2"), build("c", "-gdwarf-4", "-O0")):
            obj = elf.parse(blob)
            found.append(debug_sections(obj.sections, obj.symbols))
    return found


def check_damaged(sections: DebugSections) -> None:
    found = read(sections)
    assert found.typed != bool(found.reason)
    texts = [*found.units.values(), *found.signatures.values(), *found.variables.values()]
    assert all(len(text) < 100_000 for text in texts)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_mutated_dwarf(data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(seeds()))
    sections = dataclasses.replace(seed, info=list(seed.info), types=list(seed.types))
    for _ in range(data.draw(st.integers(1, 4))):
        which = data.draw(st.sampled_from(["abbrev", "str", "info", "types"]))
        homes = getattr(sections, which)
        if isinstance(homes, bytes):
            setattr(sections, which, mutated(data, homes))
        elif homes:
            index = data.draw(st.integers(0, len(homes) - 1))
            homes[index] = DebugSection(mutated(data, homes[index].data), homes[index].relocations)
    check_damaged(sections)


def mutated(data: st.DataObject, raw: bytes) -> bytes:
    out = bytearray(raw)
    for at in data.draw(st.lists(st.integers(0, max(len(out) - 1, 0)), max_size=8)):
        if at < len(out):
            out[at] = data.draw(st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    return bytes(out[: data.draw(st.integers(0, len(out)))] if data.draw(st.booleans()) else out)


@given(st.binary(max_size=120), st.binary(max_size=120))
def test_any_bytes(abbrev: bytes, info: bytes) -> None:
    header = len(info + b"12345678").to_bytes(4, "little") + b"\5\0\1\x08\0\0\0\0"
    check_damaged(DebugSections(abbrev=abbrev, str=b"\0", info=[DebugSection(header + info)]))
    check_damaged(DebugSections(abbrev=abbrev, str=b"\0", info=[DebugSection(info)]))
