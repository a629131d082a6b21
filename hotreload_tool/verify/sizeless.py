"""Code whose symbols have no size, as assembly often leaves it: it goes on to the next symbol, but for what fills the room."""
from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

from .linked import FUNC, NOTYPE, SHF_EXECINSTR, Linked, Symbol

_FILLS = ("nop", "int3")
_NEVER_ON = ("jmp", "ret", "ud2", "hlt", "iretq")
_ZEROS = b"\0\0"              # decoded, an instruction that nobody writes


@lru_cache(maxsize=16)
def functions(file: Linked) -> dict[int, list[Symbol]]:
    """Where such code begins -> its symbols, with the size that they could have."""
    code = [s for known in file.by_address.values() for s in known if s.type in (FUNC, NOTYPE) and file.executable(s.value)]
    sized = sorted((s.value, s.value + s.size) for s in code if s.size)
    starts = sorted({s.value for s in code})
    found: dict[int, list[Symbol]] = {}
    for symbol in code:
        section = file.section_of(symbol.value)
        if symbol.size or section is None or not section.flags & SHF_EXECINSTR or _is_inside(symbol.value, sized):
            continue
        following = bisect_right(starts, symbol.value)
        end = min(section.end, starts[following]) if following < len(starts) else section.end
        size = _without_fill(file.read(symbol.value, end - symbol.value), symbol.value)
        if size:
            found.setdefault(symbol.value, []).append(symbol._replace(type=FUNC, size=size))
    return found


def _is_inside(address: int, sized: list[tuple[int, int]]) -> bool:
    at = bisect_right(sized, (address, 1 << 64)) - 1
    return at >= 0 and address < sized[at][1]


def _without_fill(code: bytes, start: int) -> int:
    """How many bytes come before what only fills the room up to the next function."""
    from .instructions import decode
    size = len(code)
    listed = decode(code, start)
    if sum(i.size for i in listed) != size:
        return len(code.rstrip(b"\0"))
    for i in reversed(listed):
        if i.mnemonic not in _FILLS and i.data != _ZEROS and (i.mnemonic, i.operands) != ("xchg", "ax, ax"):
            break
        size -= i.size
    return size


def falls_through(file: Linked, symbol: Symbol) -> bool:
    """Whether the end of such code may lead on to what follows it."""
    from .instructions import decode
    last = decode(file.read(symbol.value, symbol.size), symbol.value)[-1:]
    return not last or last[0].mnemonic not in _NEVER_ON
