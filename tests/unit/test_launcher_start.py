"""The launcher is started for every file of a build: what it must not load before it is needed."""
from __future__ import annotations

import subprocess
import sys

_HEAVY = {"argparse", "capstone", "dataclasses", "hashlib", "inspect", "json", "pathlib", "rich", "subprocess", "tempfile",
          "hotreload_tool.cli", "hotreload_tool.elf", "hotreload_tool.instrument", "hotreload_tool.baseline", "SCons"}


def test_the_launcher_loads_nothing_heavy() -> None:
    """A question to the compiler is answered after these imports alone."""
    code = "import sys; before = set(sys.modules); import hotreload_tool.launcher; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "hotreload_tool.command_line" in loaded
    assert not loaded & _HEAVY
