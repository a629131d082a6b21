"""For tests that patch a program step by step."""
from __future__ import annotations

from pathlib import Path

import pytest
from benchtools import ANSWER, BEFORE, CONFIGURATION, Bench
from casetools import Builder, read_case

from hotreload_tool.baseline import Store


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    folder = tmp_path / "case"
    folder.mkdir()
    first = "//# Expect: one\n" + BEFORE + ANSWER % ("", 1)
    (folder / "v1.cc").write_text(first)
    (folder / "v2.cc").write_text("//# Patch: ok\n//# Expect: two\n")      # a case has two versions; this one is never built
    (tmp_path / "build").mkdir()
    builder = Builder(read_case(folder), CONFIGURATION, tmp_path / "build", tmp_path / "shared")
    program = builder.link(builder.objects(builder.case.first))
    store = Store(tmp_path / "hotreload")
    return Bench(builder, store, store.file_image(program, "prog"), program)
