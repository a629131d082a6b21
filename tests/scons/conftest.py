"""Fixtures of the build tests."""
from __future__ import annotations

from pathlib import Path

import pytest

from sconsproject import copy_tool


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    """A copy of the tool that the test may change."""
    return copy_tool(tmp_path / "tool")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the project of the test goes."""
    path = tmp_path / "project"
    path.mkdir()
    return path
