"""Made-up names: what they may hold, and that no two things get one name."""
from __future__ import annotations

import os
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotreload_tool import names

PATHS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@pytest.mark.parametrize(("path", "name"), [
    ("build/src/game.o", "build/src/game.o"),
    ("../lib/x-1.2_3+4.o", "../lib/x-1.2_3+4.o"),
    ("my game/a b\t.o", "my%20game/a%20b%09.o"),
    ("a@b.o", "a%40b.o"),
    ("100%.o", "100%25.o"),
    ("café.o", "caf%C3%A9.o"),
    ('quo"te\'s;.o', "quo%22te%27s%3B.o"),
    ("x~1.o", "x~1.o"),
])
def test_names_of_objects(path: str, name: str) -> None:
    assert names.object_name(path) == name


def test_a_path_that_is_not_utf8_has_a_name() -> None:
    assert names.object_name(os.fsdecode(b"a\xff.o")) == "a%FF.o"


@given(PATHS)
def test_a_name_holds_nothing_that_linkers_or_listings_split_at(path: str) -> None:
    name = names.object_name(path)
    assert name.isascii() and name.isprintable()
    assert not set(name) & set(' \t\n@"\'\\;:<>|`?')
    assert unquote(name) == path


@given(PATHS, PATHS)
def test_two_paths_have_two_names(one: str, other: str) -> None:
    assert (names.object_name(one) == names.object_name(other)) == (one == other)


SYMBOLS = st.from_regex(r"[A-Za-z_$][A-Za-z0-9_$.]{0,20}(#[0-9]+)?", fullmatch=True)


@given(SYMBOLS, PATHS)
def test_a_unique_name_splits_into_symbol_and_object(symbol: str, path: str) -> None:
    """A C or mangled C++ symbol holds no `~`, so that the first one separates, also where the path has one."""
    unique = names.unique_local(symbol, names.object_name(path))
    assert unique.partition(names.LOCAL_SEPARATOR)[::2] == (symbol, names.object_name(path))


def test_suffixes_look_like_compiler_clones() -> None:
    for suffix in (names.BODY_SUFFIX, names.SLOT_SUFFIX):
        assert suffix.startswith(".") and suffix[1:].isidentifier()
    assert names.SLOT_SECTION.startswith(".data.rel.ro.")
    assert not names.MAP_SECTION.strip(".").isidentifier()      # else the linker would make __start_ and __stop_ symbols
