"""Code without a stub that the compiler split off or cloned: `.cold` halves, `.constprop` and the like."""
from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from . import elf
from .elf import Elf, Symbol
from .names import BODY_SUFFIX

_NAMELESS = re.compile(r"^(?P<base>.+?)\.(?:constprop|isra|part|cold|lto_priv|llvm|specialized)(?:\.\d+|\.\w*)*$")
LONGEST = 1 << 20            # bytes: a body without a size is taken to end at the next one, or here


@dataclass(frozen=True, order=True)
class Fragment:
    """A piece of code without a stub."""
    start: int
    size: int
    base: str                 # the function it was made from


class Functions:
    """The symbols of code of a linked file, by address."""

    def __init__(self, file: Elf) -> None:
        self.symbols: list[Symbol] = [s for s in file.symbols if s.defined and s.type == elf.STT_FUNC]
        self._starts = sorted({s.value for s in self.symbols})

    def size(self, start: int, known: int) -> int:
        """`known`, or for code without a size (assembler) the distance to what follows."""
        if known:
            return known
        following = bisect_right(self._starts, start)
        return min(LONGEST, self._starts[following] - start) if following < len(self._starts) else LONGEST

    def fragments(self) -> list[Fragment]:
        """In the order of their addresses."""
        found = ((s, _NAMELESS.match(s.name)) for s in self.symbols)
        return sorted({Fragment(s.value, self.size(s.value, s.size), m["base"].removesuffix(BODY_SUFFIX)) for s, m in found if m})
