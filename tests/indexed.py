"""Images from data with an index beside them, for tests of what looks up."""
from __future__ import annotations

from pathlib import Path

import pytest

import elfwriter
from hotreload_tool import index
from hotreload_tool.index import Index
from hotreload_tool.live import ImageFacts, LiveState, from_image


def write(folder: Path, facts: ImageFacts) -> Path:
    """A file that holds the maps, and code with a fragment."""
    sections = [elfwriter.Section(".text", bytes(0x100), flags="AX", align=16, address=0x1000),
                elfwriter.Section(".hotreload.map", b"".join(m.pack() for m in facts.maps), align=8)]
    symbols = [elfwriter.Symbol("g.cold", ".text", value=0x40, size=8, type="FUNC"),
               elfwriter.Symbol("h.constprop.0", ".text", value=0x60, size=16, type="FUNC")]
    path = folder / "image"
    path.write_bytes(elfwriter.image("EXEC", sections, symbols))
    return path


def indexed(folder: Path, facts: ImageFacts, refusals: bool = False) -> LiveState:
    """`refusals`: of a changed type, the image is read to say which variables hold it."""
    path = write(folder, facts)
    (folder / "index").write_bytes(index.make(path, facts, from_image(facts)))
    opened = Index(folder / "index", path, facts.build_id)
    return index.live_state(opened, lambda: facts if refusals else pytest.fail("the whole image was read"))
