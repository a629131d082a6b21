"""Sections of docs/campaign.md that commands write; the text around them is written by people."""
from __future__ import annotations

from pathlib import Path


def replace(path: Path, name: str, text: str) -> None:
    """Put `text` between the marks of section `name`. Raises ValueError if the file has no such section."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, mark, rest = path.read_text().partition(begin)
    _, closing, after = rest.partition(end)
    if not mark or not closing:
        raise ValueError(f"{path} has no section between {begin.strip()} and {end.strip()}")
    path.write_text(before + begin + text + end + after)
