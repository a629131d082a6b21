"""Where the old code of changed functions lies, all of it: a thread in there must not be overtaken by the patch.

A function's code is more than its body. Compilers move unlikely parts to a `.cold` half elsewhere, and make clones
(`.constprop`, `.isra`, `.part`) that have no stub: a clone that its caller jumps to (a tail call) can be the only trace
of that caller on a stack. Both are found in two ways, and each alone would do for most functions: by name, and by the
displacements in the code that lead into one. What looks like a displacement and is none only adds a range, so a
thread is waited for in vain at worst, never overlooked.
"""
from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from . import elf, mapped
from .baseline import Store
from .elf import Elf
from .fragments import LONGEST, Functions
from .index import Index
from .live import LiveState
from .names import LOCAL_SEPARATOR
from .plan import FunctionChange

Range = tuple[int, int]       # image-relative: first byte, size


class _Code:
    """The code of one image or payload: its bytes by address, and its fragments."""

    def __init__(self, file: Elf) -> None:
        self._file = file
        self._sections = [s for s in file.sections if s.flags & elf.SHF_EXECINSTR and s.type == elf.SHT_PROGBITS]

    @functools.cached_property
    def _functions(self) -> Functions:
        return Functions(self._file)

    @functools.cached_property
    def _fragments(self) -> list[Range]:
        return [(f.start, f.size) for f in self._functions.fragments()]

    def size(self, start: int, known: int) -> int:
        return known or self._functions.size(start, known)

    def made_from(self, function: str) -> list[Range]:
        """Fragments by the name of their function."""
        return [(f.start, f.size) for f in self._functions.fragments() if f.base == function]

    def fragment_at(self, address: int) -> Range | None:
        at = bisect_right(self._fragments, (address, LONGEST)) - 1
        return self._fragments[at] if at >= 0 and address < sum(self._fragments[at]) else None

    def read(self, start: int, size: int) -> bytes:
        for section in self._sections:
            if section.addr <= start < section.addr + section.size:
                return mapped.piece(section, start - section.addr, size)
        return b""

    def reached_from(self, start: int, size: int) -> Iterable[Range]:
        """Fragments into which a 32-bit displacement, or an absolute 32-bit address, in this code leads."""
        code = self.read(start, size)
        for i in range(len(code) - 3):
            word = int.from_bytes(code[i:i + 4], "little", signed=True)
            for target in (start + i + 4 + word, word):
                found = self.fragment_at(target)
                if found is not None:
                    yield found


class _IndexedCode(_Code):
    """The same of an image with an index: its symbols are not read."""

    def __init__(self, file: Elf, index: Index) -> None:
        super().__init__(file)
        self._index = index

    def made_from(self, function: str) -> list[Range]:
        return self._index.fragments(function)

    def fragment_at(self, address: int) -> Range | None:
        return self._index.fragment_at(address) if address >= 0 else None


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
        code = store.derived(store.linked(live, generation), _Code) if generation else _code_of_image(store, live)
        symbols = _source_names(live, functions)
        for function in functions:
            found[function.name] = _parts_of(code, function, symbols[function.name])
    return found


def _code_of_image(store: Store, live: LiveState) -> _Code:
    file = store.linked(live)
    return store.derived(file, _Code) if live.index is None else _IndexedCode(file, live.index)


def _source_names(live: LiveState, functions: Iterable[FunctionChange]) -> Mapping[str, str]:
    """The names fragments are called after: a file-local function is known by what the source calls it."""
    return {f.name: f.name.partition(LOCAL_SEPARATOR)[0].partition("#")[0] for f in functions}


def _parts_of(code: _Code, function: FunctionChange, symbol: str) -> list[Range]:
    whole = code.size(function.old_body, function.old_size)
    seen = set(code.made_from(symbol))
    waiting: list[Range] = [(function.old_body, whole), *seen]
    while waiting:
        for fragment in code.reached_from(*waiting.pop()):
            if fragment not in seen:
                seen.add(fragment)
                waiting.append(fragment)
    body = [(function.old_body, whole)] if whole != function.old_size else []
    return sorted([*body, *seen])
