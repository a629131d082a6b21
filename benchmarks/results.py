"""What a benchmark measured, in one file for each: benchmarks/results/NAME.json; docs/performance.md is made of them.

A result says what was run, on which machine and commit, so that a page never shows a figure that nobody can repeat.
"""
from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
FOLDER = REPO / "benchmarks" / "results"


@dataclass
class Table:
    """Rows of text and numbers below their columns; Markdown in cells is kept."""
    caption: str
    columns: list[str]
    rows: list[list[str | float]]


@dataclass
class Target:
    """What was promised, beside what came out."""
    what: str
    wanted: str
    measured: str
    met: bool


@dataclass
class Result:
    """All of one benchmark. `order` is its place on the page; `pictures` are files beside the page, below docs/."""
    name: str
    title: str
    about: str                                  # paragraphs: what is measured, and how
    tables: list[Table]
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    order: int = 50
    command: str = field(default_factory=lambda: command())
    machine: str = field(default_factory=lambda: machine())
    commit: str = field(default_factory=lambda: commit())
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())
    raw: dict[str, Any] = field(default_factory=dict)    # every single measurement, for those who compute otherwise

    def write(self) -> Path:
        """Replace this benchmark's file; returns its path."""
        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"{self.name}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return path


def read(path: Path) -> Result:
    """Raises ValueError where the file is not a result."""
    try:
        values = json.loads(path.read_text())
        tables = [Table(**t) for t in values.pop("tables")]
        targets = [Target(**t) for t in values.pop("targets")]
        return Result(tables=tables, targets=targets, **values)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as e:
        raise ValueError(f"{path} is not a result of a benchmark: {e}") from e


def command() -> str:
    """This process's command line as one would type it in the top folder."""
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(REPO) if script.is_relative_to(REPO) else script
    return shlex.join(["python", str(shown), *sys.argv[1:]])


def machine() -> str:
    """CPUs, memory, kernel, compiler, Python: what figures depend on."""
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    gcc = _output(["gcc", "-dumpfullversion"])
    return (f"{os.cpu_count()} × {model}, {memory:.0f} GiB, Linux {platform.release()}, gcc {gcc}, "
            f"Python {platform.python_version()}")


def commit() -> str:
    """The commit that was measured, with `+` where files differ from it."""
    dirty = _output(["git", "status", "--porcelain", "--untracked-files=no", "--", "hotreload_tool", "runtime"])
    return _output(["git", "rev-parse", "--short", "HEAD"]) + ("+" if dirty else "")


def _output(argv: Sequence[str]) -> str:
    try:
        return subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
