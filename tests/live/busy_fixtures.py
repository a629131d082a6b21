"""Fixtures for tests of the project in busy.py: built once for a module, copied for each test."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import busy
import pytest

from livetools import Program, Workspace, workspace


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    source = busy.write(tmp_path_factory.mktemp("busy") / "source")
    with workspace(source, source.parent / "built") as work:
        work.scons()
        yield work.path


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Iterator[Workspace]:
    with workspace(built, tmp_path / "busy") as work:
        work.scons()
        yield work


@pytest.fixture
def program(project: Workspace) -> Iterator[Program]:
    with project.start(["build/busy"]) as running:
        running.expect("^ready\n")
        running.ask("say", "^hello, steps 1 1, tuned 10, unlikely 7\n")
        yield running
