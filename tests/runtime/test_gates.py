"""runtime/gate.c by itself: tests/runtime/gates.c shuts gates, and says what calls that meet them do."""
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from runtimetools import SANITIZE, SOURCES, build, environment

WRITABLE = ["-Wl,-z,norelro"]     # the agent opens the pages of slots; here they are open

EXPECTED = """\
prepared: 1
given up: while shut -1
given up: 60000
keeper: 0 5
child: 7
committed: while shut -1
committed: 61000
as many as there are: 1
more: 0
bytes in place: 0
"""


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_gates(folder: Path, compiler: str) -> None:
    """Arguments arrive whole, calls wait until the gates open and run what is live then; whoever must not wait does not."""
    image = build(folder, f"gates_{compiler}", [SOURCES / "gates.c"], compiler=compiler, link=WRITABLE)
    done = subprocess.run([image.path], capture_output=True, text=True, timeout=120, env=environment())
    assert (done.returncode, done.stdout) == (0, EXPECTED), done.stderr


def test_gates_under_asan(folder: Path) -> None:
    image = build(folder, "gates_asan", [SOURCES / "gates.c"], flags=SANITIZE, runtime_flags=tuple(SANITIZE),
                  link=[*SANITIZE, *WRITABLE])
    done = subprocess.run([image.path], capture_output=True, text=True, timeout=120,
                          env=environment(ASAN_OPTIONS="detect_leaks=0"))
    assert (done.returncode, done.stdout) == (0, EXPECTED), done.stderr
