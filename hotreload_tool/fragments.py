"""Code without a stub that the compiler split off or cloned: `.cold` halves, `.constprop` and the like."""
from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from . import elf
from .elf import Elf
from .names import BODY_SUFFIX

_NAMELESS = re.compile(r"^(?P<base>.+?)\.(?:constprop|isra|part|cold|lto_priv|llvm|specialized)(?:\.\d+|\.\w*)*$")
_MAY_BE_NAMELESS = re.compile(r"\.[cilps]")              # looked for faster
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
        self._symbols = [(name, value, size) for name, info, _, section, value, size in elf.symbol_rows(file)
                         if info & 15 == elf.STT_FUNC and section > 0]
        self._starts = sorted({value for _, value, _ in self._symbols})

    def size(self, start: int, known: int) -> int:
        """`known`, or for code without a size (assembler) the distance to what follows."""
        if known:
            return known
        following = bisect_right(self._starts, start)
        return min(LONGEST, self._starts[following] - start) if following < len(self._starts) else LONGEST

    def fragments(self) -> list[Fragment]:
        """In the order of their addresses."""
        found = ((start, self.size(start, size), _NAMELESS.match(name)) for name, start, size in self._symbols
                 if _MAY_BE_NAMELESS.search(name))
        return sorted({Fragment(start, size, m["base"].removesuffix(BODY_SUFFIX)) for start, size, m in found if m})
