"""Fixtures of the campaigns."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import builds
import pytest


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the runtime's objects."""
    folder = tmp_path_factory.mktemp("campaign")
    builds.runtime_objects(folder)
    return folder


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is entered here ends with the test; the environment is as before."""
    before = os.environ.get("HOTRELOAD_RUNTIME_DIR")
    with ExitStack() as opened:
        yield opened
    if before is None:
        os.environ.pop("HOTRELOAD_RUNTIME_DIR", None)
    else:
        os.environ["HOTRELOAD_RUNTIME_DIR"] = before
