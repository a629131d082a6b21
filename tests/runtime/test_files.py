"""Payload files that are cut, written over, replaced or removed while processes run what came from them."""
from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from runtimetools import Image, Recipe, make_payload, maps, start

from hotreload_tool import process

# Constants and code on pages of their own, which nobody has touched when the file changes.
SOURCE = """
static int calls;
static const char table[1 << 16] __attribute__((aligned(4096))) = {[40000] = 7, [65535] = 9};
static int tail = 5;
__attribute__((noinline, aligned(8192))) static int far(int at) { return table[at] + tail++; }
int value_new(void) { return !calls++ ? 1 : far(40000) + 1000 * table[65535]; }
"""


def cut(path: Path) -> None:
    os.truncate(path, 0)


def write_over(path: Path) -> None:
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.write(b"\xcc" * size)


def replace(path: Path) -> None:
    other = path.with_suffix(".other")
    other.write_bytes(b"\xcc" * path.stat().st_size)
    other.rename(path)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [cut, write_over, replace, remove])
def test_what_happens_to_the_file_later_does_not_reach_the_process(folder: Path, target: Image, tmp_path: Path,
                                                                   harm: Callable[[Path], None]) -> None:
    made = make_payload(folder, Recipe(target, SOURCE, {"value": "value_new"}))
    path = Path(shutil.copy(made.path, tmp_path / "payload.so"))
    with start(target) as program:
        process.apply(program.pid, [path])
        program.ask("value", "^value 1\n", reject="value 101")
        mapped = [m for m in maps(program.pid) if m.file == str(path)]
        assert len(mapped) >= 4
        assert all(m.in_memory for m in mapped)
        harm(path)
        program.ask("fork", r"^child \d+\n")          # a child that has touched nothing of it either
        program.ask("value", "^value 9012\n", reject="value 101")
        program.send("exit\n")
        program.expect("child ended with 768\n")
        result = process.revert(program.pid, target.build_id.hex(), 0)
        assert result.images[0].generation == 0
        program.ask("value", "^value 101\n")
        assert process.apply(program.pid, [made.path]).images[0].functions_live == 1
        program.ask("value", "^value 9012\n", reject="value 102")
        assert program.finish() == 0
