"""The construction variables: what is accepted, what is refused and how, and who wins."""
from __future__ import annotations

from typing import Any

import pytest

from hotreload_tool import settings
from hotreload_tool.settings import SETTINGS, SettingError, check, collect


def values(**changed: Any) -> dict[str, Any]:
    return {**collect({}, {}, {}), **changed}


def test_defaults_are_valid() -> None:
    checked = check(values())
    assert (checked.enabled, checked.stubs, checked.directory, checked.exclude) == (True, "plt", "#.hotreload", ())


@pytest.mark.parametrize("written, read", [
    (4096, 4096), ("4096", 4096), ("64k", 65536), ("64M", 64 << 20), (5000, 8192), (1 << 30, 1 << 30)])
def test_arena_is_whole_pages(written: Any, read: int) -> None:
    assert check(values(HOTRELOAD_ARENA=written)).arena == read


@pytest.mark.parametrize("name, value, says", [
    ("HOTRELOAD_ARENA", 0, "out of range"),
    ("HOTRELOAD_ARENA", "2G", "out of range"),
    ("HOTRELOAD_ARENA", "many", "not a number of bytes"),
    ("HOTRELOAD_PAD", -1, "not a number of bytes"),
    ("HOTRELOAD_PAD", "1G", "too many"),
    ("HOTRELOAD_STUBS", "jump", "not a kind of stub"),
    ("HOTRELOAD_ENABLED", "maybe", "neither yes nor no"),
    ("HOTRELOAD_EXCLUDE", 7, "HOTRELOAD_EXCLUDE"),
    ("HOTRELOAD_DIR", "", "directory of its own"),
    ("HOTRELOAD_DIR", "#", "directory of its own"),
    ("HOTRELOAD_DIR", "#.", "directory of its own"),
    ("HOTRELOAD_DIR", "/", "directory of its own"),
    ("HOTRELOAD_DIR", "..", "directory of its own"),
    ("HOTRELOAD_DIR", "a/../..", "directory of its own"),
])
def test_refusals_name_the_variable_and_what_to_write(name: str, value: Any, says: str) -> None:
    with pytest.raises(SettingError, match=says) as caught:
        check(values(**{name: value}))
    assert name in str(caught.value)


def test_command_line_wins_over_environment_over_keywords_over_default() -> None:
    layers: list[dict[str, Any]] = [{"HOTRELOAD_PAD": n} for n in (1, 2, 3)]
    assert collect(layers[1], layers[0], layers[2])["HOTRELOAD_PAD"] == 1
    assert collect(layers[1], {}, layers[2])["HOTRELOAD_PAD"] == 2
    assert collect({}, {}, layers[2])["HOTRELOAD_PAD"] == 3
    assert collect({}, {}, {})["HOTRELOAD_PAD"] == 32


def test_misspelt_variable_is_an_error() -> None:
    with pytest.raises(SettingError, match="no variable HOTRELOAD_PADS; there are .*HOTRELOAD_PAD"):
        collect({}, {"HOTRELOAD_PADS": "1"}, {})


def test_excludes_by_pattern_of_the_whole_path() -> None:
    checked = check(values(HOTRELOAD_EXCLUDE="third_party/* src/slow.c"))
    assert checked.excludes("third_party/zlib/inflate.c")
    assert checked.excludes("src/slow.c")
    assert not checked.excludes("src/slow.cc")
    assert not checked.excludes("other/src/slow.c")


def test_directory_is_anchored_at_the_top() -> None:
    assert check(values(HOTRELOAD_DIR="state/")).directory == "#state"
    assert check(values(HOTRELOAD_DIR="/var/tmp/hr")).directory == "/var/tmp/hr"


def test_help_lists_every_variable() -> None:
    text = settings.help_text()
    assert [s.name for s in SETTINGS if s.name not in text] == []
