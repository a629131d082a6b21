"""Make docs/performance.md from the results of the benchmarks that were last run (benchmarks/results/*.json).

usage: python benchmarks/performance.py [--check]

--check writes nothing and fails where the page is not what the results say.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2

sys.path.insert(0, str(Path(__file__).resolve().parent))

import results

PAGE = results.REPO / "docs" / "performance.md"
TEMPLATE = Path(__file__).with_name("performance.md.jinja")


def page(found: Sequence[results.Result]) -> str:
    return environment().from_string(TEMPLATE.read_text()).render(results=found)


def environment() -> jinja2.Environment:
    made = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
                              autoescape=False)
    made.filters["cell"] = cell
    return made


def cell(value: str | float) -> str:
    """A cell of a Markdown table. Numbers with three digits that count."""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def read_all() -> list[results.Result]:
    found = [results.read(path) for path in results.FOLDER.glob("*.json")]
    return sorted(found, key=lambda r: (r.order, r.name))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail where the page is not up to date")
    made = page(read_all())
    if parser.parse_args().check:
        return int(not PAGE.exists() or PAGE.read_text() != made)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
