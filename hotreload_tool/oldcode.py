"""Where the old code of changed functions lies, all of it: a thread in there must not be overtaken by the patch.

A function's code is more than its body. Compilers move unlikely parts to a `.cold` half elsewhere, and make clones
(`.constprop`, `.isra`, `.part`) that have no stub: a clone that its caller jumps to (a tail call) can be the only trace
of that caller on a stack. Both are found in two ways, and each alone would do for most functions: by name, and by the
displacements in the code that lead into one. What looks like a displacement and is none only adds a range, so a
thread is waited for in vain at worst, never overlooked.
"""
from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from . import elf
from .baseline import Store
from .elf import Elf
from .live import LiveState
from .names import BODY_SUFFIX, LOCAL_SEPARATOR
from .plan import FunctionChange

Range = tuple[int, int]       # image-relative: first byte, size

_NAMELESS = re.compile(r"^(?P<base>.+?)\.(?:constprop|isra|part|cold|lto_priv|llvm|specialized)(?:\.\d+|\.\w*)*$")
_LONGEST = 1 << 20            # bytes: a body without a size is taken to end at the next one, or here


@dataclass(frozen=True)
class _Fragment:
    """A piece of code without a stub."""
    start: int
    size: int
    base: str                 # the function it was made from


class _Code:
    """The code of one image or payload: its bytes by address, and its fragments."""

    def __init__(self, file: Elf) -> None:
        functions = [s for s in file.symbols if s.defined and s.type == elf.STT_FUNC]
        self._sections = [s for s in file.sections if s.flags & elf.SHF_EXECINSTR and s.type == elf.SHT_PROGBITS]
        self._starts = sorted({s.value for s in functions})
        found = ((s, _NAMELESS.match(s.name)) for s in functions)
        self.fragments = sorted({_Fragment(s.value, self.size(s.value, s.size), m["base"].removesuffix(BODY_SUFFIX))
                                 for s, m in found if m}, key=lambda f: f.start)
        self._fragment_starts = [f.start for f in self.fragments]

    def size(self, start: int, known: int) -> int:
        """`known`, or for code without a size (assembler) the distance to what follows."""
        if known:
            return known
        following = bisect_right(self._starts, start)
        return min(_LONGEST, self._starts[following] - start) if following < len(self._starts) else _LONGEST

    def read(self, start: int, size: int) -> bytes:
        for section in self._sections:
            if section.addr <= start < section.addr + section.size:
                return bytes(section.data[start - section.addr:start - section.addr + size])
        return b""

    def reached_from(self, start: int, size: int) -> Iterable[_Fragment]:
        """Fragments into which a 32-bit displacement, or an absolute 32-bit address, in this code leads."""
        code = self.read(start, size)
        for i in range(len(code) - 3 if self.fragments else 0):
            word = int.from_bytes(code[i:i + 4], "little", signed=True)
            for target in (start + i + 4 + word, word):
                at = bisect_right(self._fragment_starts, target) - 1
                if at >= 0 and target < self.fragments[at].start + self.fragments[at].size:
                    yield self.fragments[at]


def parts(store: Store, live: LiveState, changed: Sequence[FunctionChange]) -> dict[str, list[Range]]:
    """By function of `changed`: the code beside its old body that counts as the old function. Reads the image, or the
    payload that brought the body."""
    if not changed:
        return {}
    brought: dict[int, list[FunctionChange]] = {}
    for function in changed:
        brought.setdefault(live.functions[function.name].generation, []).append(function)
    found: dict[str, list[Range]] = {}
    for generation, functions in brought.items():
        code = store.derived(store.linked(live, generation), _Code)
        symbols = _source_names(live, functions)
        for function in functions:
            found[function.name] = _parts_of(code, function, symbols[function.name])
    return found


def _source_names(live: LiveState, functions: Iterable[FunctionChange]) -> Mapping[str, str]:
    """The names fragments are called after: a file-local function is known by what the source calls it."""
    return {f.name: f.name.partition(LOCAL_SEPARATOR)[0].partition("#")[0] for f in functions}


def _parts_of(code: _Code, function: FunctionChange, symbol: str) -> list[Range]:
    whole = code.size(function.old_body, function.old_size)
    seen = {f for f in code.fragments if f.base == symbol}
    waiting: list[Range] = [(function.old_body, whole), *((f.start, f.size) for f in seen)]
    while waiting:
        for fragment in code.reached_from(*waiting.pop()):
            if fragment not in seen:
                seen.add(fragment)
                waiting.append((fragment.start, fragment.size))
    body = [(function.old_body, whole)] if whole != function.old_size else []
    return sorted(body + [(f.start, f.size) for f in seen])
