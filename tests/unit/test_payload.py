"""Preparing objects for the payload's link: what is bound to the image, what is imported, what comes along."""
from __future__ import annotations

from pathlib import Path

import pytest

from elfwriter import Section, Symbol, relocatable
from hotreload_tool import elf, payload


def prepared(exported: frozenset[str], visibility: str) -> dict[str, elf.Symbol]:
    """An object that defines function `f` and variable `v`, which both live at known addresses."""
    obj = elf.parse(relocatable(
        sections=[Section(".text.f", b"\xc3", flags="AX"), Section(".data.v", bytes(4), flags="AW", align=4)],
        symbols=[Symbol("f", ".text.f", size=1, type="FUNC", binding="GLOBAL", visibility=visibility),
                 Symbol("v", ".data.v", size=4, type="OBJECT", binding="GLOBAL", visibility=visibility),
                 Symbol("fresh", ".data.v", size=4, type="OBJECT", binding="GLOBAL", visibility=visibility)]))
    request = payload.PayloadRequest(
        image=Path("image"), kind="shared", build_id=bytes(20), generation=1, id=bytes(32), parent=bytes(32), base=0x10000,
        limit=0x20000, objects={}, functions={"f": payload.BoundFunction(0x1000, 0x3000)}, data={"v": 0x4000},
        symbols={}.get, exported=exported)
    payload.prepare(obj, "a.o", 0, request)
    return {s.name: s for s in obj.symbols}


@pytest.mark.parametrize("visibility, exported", [("DEFAULT", frozenset()), ("HIDDEN", frozenset({"f", "v"}))])
def test_what_lives_is_bound_to_its_address(visibility: str, exported: frozenset[str]) -> None:
    found = prepared(exported, visibility)
    assert [(found[n].value, found[n].visibility) for n in "fv"] == [(0x1000, elf.STV_HIDDEN), (0x4000, elf.STV_HIDDEN)]
    assert found["f"].defined and found["v"].defined


def test_what_another_image_may_interpose_is_imported() -> None:
    """A second definition of it in the payload would be another variable, and another address of the function."""
    found = prepared(frozenset({"f", "v", "elsewhere"}), "DEFAULT")
    assert [(found[n].shndx, found[n].value, found[n].binding) for n in "fv"] == [(elf.SHN_UNDEF, 0, elf.STB_GLOBAL)] * 2
    assert found["fresh"].defined and found["fresh"].value == 0
