"""Thread-locals are compared by what lies at their offsets, also where equal numbers could pass for equal ones."""
from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from bundles import Broken, Made, case_of, installed, make
from casetools import CASES, read_case
from test_completeness import compared, is_complete

from hotreload_tool.verify.instructions import decode
from hotreload_tool.verify.linked import TLS, Linked
from hotreload_tool.verify.side import Side
from hotreload_tool.verify.space import Space
from hotreload_tool.verify.threadpointer import offsets

EXCHANGED = """
#include "case.h"
static __thread int one[8], two[8];
NOINLINE int use(int *p, int *q) { return *p += 2 * *q + 1; }
NOINLINE int first(int n) { return n + use(one, two) + one[n & 3]; }
NOINLINE int *second(int n) { return n > 2 ? two : one; }
NOINLINE int third(int n) { int held = use(one, one + 1); while (n-- > 0) held += use(two, one + n); return held; }
void answer(const char *line) { int n = (int)strlen(line); printf("%d %d %d\\n", first(n), *second(n), third(n)); }
"""


def _places_of(made: Made, kind: str) -> list[int]:
    """The offsets of `one` and `two` in the image: from the thread pointer, in a library in its block."""
    image = Linked(made.image.read_bytes(), "image")
    size = Side(Space(image)).tls_size if kind != "shared" else 0
    return [next(s.value for s in image.symbols if s.name == name and s.type == TLS) - size for name in ("one", "two")]


def _exchange(b: Broken, name: str, one: int, two: int) -> None:
    """`one` for `two` and the contrary, in all of a function."""
    code = next(s for s in b.file.symbols if s.name == f"{name}.hr_new")
    held = bytearray(b.read(code.value, code.size))
    for i in decode(bytes(held), code.value):
        at, number = next(((i.size - size, n) for size in (4, 1) for n in (one, two)
                           if i.data[-size:] == n.to_bytes(4, "little", signed=True)[:size]), (0, 0))
        if at > 1 and (i.mnemonic in ("lea", "add") or "fs:[" in i.operands or number > 0):
            width = i.size - at
            start = i.at - code.value + at
            held[start:start + width] = (one + two - number).to_bytes(4, "little", signed=True)[:width]
    assert bytes(held) != b.read(code.value, code.size)
    b.write(code.value, bytes(held))


@pytest.mark.parametrize("configuration", ["gcc -O0 pie", "gcc -O2 pie", "gcc -Os exec", "clang -O0 exec", "clang -O2 pie",
                                           "gcc -O0 shared", "gcc -O2 shared", "clang -O2 shared"])
def test_thread_locals_that_exchanged_place_and_role_are_found(configuration: str, tmp_path: Path, shared_folder: Path) -> None:
    """The new image has each where the image has the other one: the wrong numbers are the new image's."""
    second = EXCHANGED.replace("one[8], two[8]", "two[8], one[8]").replace("+ one[n & 3]", "- one[n & 3]")
    second = second.replace("n > 2", "n > 3").replace("while (n-- > 0) held", "held++; while (n-- > 0) held")
    wanted = installed(configuration)
    made = make(case_of(tmp_path / "case", EXCHANGED, second), wanted, tmp_path / "build", shared_folder)
    assert is_complete(compared(made, 1, made.new[0])), compared(made, 1, made.new[0]).different
    one, two = _places_of(made, wanted.kind)
    for name in ("first", "second", "third"):
        found = compared(made, 1, made.new[0], partial(_exchange, name=name, one=one, two=two))
        assert list(found.different) == [name], found.different


# ---- what may be an offset ------------------------------------------------------------------------------------------

LOAD, OFFSET, NUMBER, ADD = "64488b042500000000", "488d50d0", "48c7c0c0ffffff", "644803042500000000"


@pytest.mark.parametrize("code, expected", [
    pytest.param([LOAD, OFFSET], [1], id="lea"),
    pytest.param([LOAD, "4883c0c0", OFFSET], [1], id="what-is-behind-an-offset-is-none"),
    pytest.param([LOAD, "4889c3", "e800000000", "488d73d0", OFFSET], [3], id="a-register-that-calls-keep"),
    pytest.param([LOAD, "48894424f8", "31c0", "488b4c24f8", "8b41d0"], [4], id="through-the-stack"),
    pytest.param([LOAD, "50", "31c0", "59", "8b41d0"], [4], id="pushed-and-popped"),
    pytest.param([OFFSET, LOAD, "ebf1"], [0], id="by-a-jump-back"),
    pytest.param(["ffe1", LOAD, "ffe1", OFFSET], [3], id="by-a-table"),
    pytest.param([LOAD, "c3", "0f1f4000", "90"], [], id="what-fills-the-room"),
    pytest.param([LOAD, "e800000000", "c3", "488d53d0"], [], id="what-nothing-leads-to"),
    pytest.param([LOAD, "4889c3", "e800000000", "c3", "488d53d0"], [4], id="a-landing-pad"),
    pytest.param([NUMBER, ADD], [0], id="a-number-that-is-added"),
    pytest.param([NUMBER, "64488b00"], [0, 1], id="a-number-behind-the-segment"),
    pytest.param([NUMBER, "4889c1", "64488b142500000000", "8b040a"], [0, 3], id="two-registers"),
    pytest.param(["648b04bdb0ffffff"], [0], id="an-index"),
    pytest.param([NUMBER, "64488b1c2528000000"], [], id="the-canary-is-none"),
])
def test_what_may_be_an_offset(code: list[str], expected: list[int]) -> None:
    parts = [bytes.fromhex(part) for part in code]
    places = [0x1000 + sum(map(len, parts[:i])) for i in range(len(parts))]
    assert [i.at for i in decode(b"".join(parts), 0x1000)] == places
    assert offsets(b"".join(parts), 0x1000).pointer == {places[i] for i in expected}


@pytest.mark.parametrize("case, configuration", [
    ("thread-local", "gcc -O2 shared"), ("thread-local-new", "gcc -O0 shared"), ("thread-local-new", "clang -O2 shared")])
def test_where_a_library_asks_for_its_thread_locals(case: str, configuration: str, tmp_path: Path, shared_folder: Path) -> None:
    """The agent writes the number of the image's block into the payload's words; what they ask for has to be the same."""
    wanted = installed(configuration)
    read = read_case(CASES / case)
    read.versions = [v for v in read.versions if v.number == 1 or (v.value("Patch", wanted) or "") == "ok"]
    made = make(read, wanted, tmp_path / "build", shared_folder)
    assert is_complete(compared(made, 1, made.new[0])), compared(made, 1, made.new[0]).different
    words = Broken.of(made.bundles[0]).tables.module_words
    assert words
    for word in words:
        def another(b: Broken, word: int = word) -> None:
            b.set_word(word + 8, b.file.word(word + 8) + 1023)

        def no_block(b: Broken) -> None:
            b.set_count("tls_modules", 0)

        for change in (another, no_block):
            assert "step" in compared(made, 1, made.new[0], change).different
