"""watch/saves.py: what the kernel tells of files, and when."""
from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotreload_tool.watch.saves import Saves, changed_since

SECONDS = 20.0       # a bound


@pytest.fixture
def saves(tmp_path: Path) -> Iterator[Saves]:
    found = Saves()
    assert found.follow(str(tmp_path)) and not found.follow(str(tmp_path))
    yield found
    found.close()


def test_a_file_counts_when_it_is_closed(saves: Saves, tmp_path: Path) -> None:
    with open(tmp_path / "a.c", "w") as file:
        file.write("half")
        file.flush()
        assert saves.now() == set()
        file.write(" and the rest")
    assert saves.wait(SECONDS) == {str(tmp_path / "a.c")}
    assert saves.now() == set()


def test_names_that_come_and_go(saves: Saves, tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text("1")
    saves.now()
    (tmp_path / ".new").write_text("2")
    os.replace(tmp_path / ".new", source)
    assert str(source) in saves.now()
    os.link(source, tmp_path / "b.c")                  # complete as soon as they are there: nobody closes them
    os.symlink("a.c", tmp_path / "c.c")
    assert saves.now() == {str(tmp_path / "b.c"), str(tmp_path / "c.c")}
    source.unlink()
    assert saves.now() == {str(source)}


def test_nothing_of_other_directories(saves: Saves, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    saves.now()
    (tmp_path / "below/a.c").write_text("1")
    assert saves.now() == set()
    assert not saves.follow(str(tmp_path / "nowhere"))


def test_a_directory_that_was_removed_can_be_followed_again(saves: Saves, tmp_path: Path) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    saves.follow(str(folder))
    folder.rmdir()
    assert str(folder) in saves.now()
    folder.mkdir()
    assert saves.follow(str(folder))
    (folder / "a.c").write_text("1")
    assert str(folder / "a.c") in saves.now()


def test_a_wait_has_an_end(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    saves = Saves(readable)
    saves.follow(str(tmp_path))
    try:
        assert saves.wait(0.01) == set()
        os.write(writable, b"x")
        assert saves.wait() == set()                   # it would wait for ever
    finally:
        saves.close()
        os.close(readable)
        os.close(writable)


def test_what_changed_before_anybody_looked(tmp_path: Path) -> None:
    old, new, gone = tmp_path / "old", tmp_path / "new", tmp_path / "gone"
    old.write_text("1")
    moment = old.stat().st_ctime_ns + 3_600_000_000_000
    assert changed_since(map(str, (old, gone)), moment) == set()
    new.write_text("2")
    os.utime(new, ns=(0, 0))                           # the time of change is the kernel's
    assert changed_since(map(str, (old, new, gone)), time.time_ns() - 60_000_000_000) == {str(old), str(new)}
