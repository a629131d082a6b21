"""For all tests: how much input to run, and no contact with the user's own processes."""
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from livetools import compile_modules

# A slow machine is no defect: what must be bounded is bounded by the tests' own time limits.
settings.register_profile("hotreload", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hotreload")

compile_modules()       # a third of the time of `scons`, and thousands of tests run it

_SIZES = ("small", "full")


@pytest.fixture(scope="session")
def full_size() -> bool:
    """Whether long tests run in full (HOTRELOAD_TEST_SIZE=full) and not in the smaller size (small, the default)."""
    size = os.environ.get("HOTRELOAD_TEST_SIZE", "small")
    if size not in _SIZES:
        pytest.fail(f"HOTRELOAD_TEST_SIZE={size}: it is one of {', '.join(_SIZES)}")
    return size == "full"


@pytest.fixture(scope="session", autouse=True)
def private_runtime_directory() -> Iterator[Path]:
    """Agents and clients of this session meet in a directory of their own, short enough for a socket's address."""
    path = Path(tempfile.mkdtemp(prefix="hr-"))
    before = os.environ.get("HOTRELOAD_RUNTIME_DIR")
    os.environ["HOTRELOAD_RUNTIME_DIR"] = str(path)
    yield path
    if before is None:
        del os.environ["HOTRELOAD_RUNTIME_DIR"]
    else:
        os.environ["HOTRELOAD_RUNTIME_DIR"] = before
    shutil.rmtree(path, ignore_errors=True)
