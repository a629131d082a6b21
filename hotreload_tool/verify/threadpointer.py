"""Which numbers in code may be offsets from the thread pointer, or from the start of the image's block of thread-locals, which
lie in registers.

Values are followed through registers and the stack along every way through the code. In doubt a number may be one: it is then
compared by the thread-local that lies there. (ELF TLS ABI §4.3; which registers calls keep: psABI §3.2.1.)
"""
from __future__ import annotations

import re
from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

from .instructions import BRANCH, NUMBER, Instruction, decode

_POINTER, _BLOCK = -1, -2  # tags of the thread pointer and of the block; any other says which instruction made the number
_STACK = "stack"          # all of it as one place
_SEGMENT = b"\x64"        # the prefix without which nothing refers to thread-locals
_GENERAL = re.compile(r"r(\d+)[dwb]?|[re]?([abcd])[xlh]|[re]?(si|di|bp|sp)l?")
_MEMORY = re.compile(r"(?P<segment>fs:)?\[(?P<within>[^\]]*)\]")
_ZERO = ("qword ptr fs:[0]", "qword ptr fs:[0x0]")         # psABI: the thread pointer lies at its own address
_DISTANCE = re.compile(r"[+-] (?:0x[0-9a-f]+|\d+)$")
_WORD = re.compile(r"\b(?:r\d+|r[a-z]{2})\b")
KEPT = frozenset({"b", "bp", "12", "13", "14", "15"})                      # registers, by a call
_KEPT = KEPT | {"sp", _STACK}
_ENDS = frozenset({"jmp", "ret", "ud2", "hlt"})
_REPLACES = frozenset({"mov", "lea", "movzx", "movsx", "movsxd", "xor", "and", "or", "imul", "shl", "shr", "sar", "neg", "not"})

State = frozenset[tuple[str, int]]          # (register or stack, tag of what it may hold)


class Offsets(NamedTuple):
    """Addresses of the instructions of which a number may be an offset: the one in brackets, where there are some."""
    pointer: frozenset[int] = frozenset()
    block: frozenset[int] = frozenset()


@lru_cache(maxsize=256)
def offsets(code: bytes, address: int, calls: frozenset[int] = frozenset()) -> Offsets:
    """`calls`: addresses of the calls that return the start of the block."""
    if _SEGMENT not in code and not calls:
        return Offsets()
    listed = decode(code, address)
    if not calls and not any(i.operands.endswith(_ZERO) or "fs:[r" in i.operands for i in listed):
        return Offsets()
    return _Walk(listed, calls).run()


class _Walk:
    def __init__(self, listed: list[Instruction], calls: frozenset[int]) -> None:
        self.listed, self.starts, self.calls = listed, [i.at for i in listed], calls
        self.before: list[State | None] = [None] * len(listed)
        self.found: dict[int, set[int]] = {_POINTER: set(), _BLOCK: set()}
        self.anywhere: State = frozenset()      # what jumps without a target of their own carry to wherever they lead

    def run(self) -> Offsets:
        self._from(0, frozenset())
        for at, known in enumerate(self.before):           # landing pads, to which calls lead
            if known is None and self.listed[at].mnemonic != "nop":
                states = (s for s in self.before if s is not None)
                self._from(at, frozenset((place, tag) for s in states for place, tag in s if place in _KEPT))
        return Offsets(frozenset(self.found[_POINTER]), frozenset(self.found[_BLOCK]))

    def _from(self, first: int, state: State) -> None:
        waiting = [(first, state)]
        while waiting:
            at, state = waiting.pop()
            known = self.before[at]
            if known is None or not state <= known:
                self.before[at] = state = state | (known or frozenset())
                after = self._after(self.listed[at], state)
                waiting += [(n, after) for n in self._following(at, after)]

    def _following(self, at: int, after: State) -> list[int]:
        i = self.listed[at]
        found = [at + 1] if i.mnemonic not in _ENDS and at + 1 < len(self.listed) else []
        if not BRANCH.match(i.mnemonic) or i.mnemonic == "call":
            return found
        if not i.operands.startswith("0x"):                # by a table, or out of the function
            known, self.anywhere = self.anywhere, self.anywhere | after
            return found if after <= known else list(range(len(self.listed)))
        target = int(i.operands, 16)
        place = bisect_left(self.starts, target)
        return [*found, place] if place < len(self.starts) and self.starts[place] == target else found

    def _after(self, i: Instruction, state: State) -> State:
        """What places may hold behind an instruction; notes whose numbers it uses as offsets."""
        held = _Held(state)
        first, _, second = i.operands.partition(", ")
        self._note_memory(i, held)
        if i.mnemonic == "call":
            kept = frozenset((place, tag) for place, tag in state if place in _KEPT)
            return kept | {("a", _BLOCK)} if i.at in self.calls else kept
        if i.mnemonic in ("push", "pop"):
            source, target = (held.of(general(first)), _STACK) if i.mnemonic == "push" else (held.of(_STACK), general(first))
            return state if target is None else state | {(target, tag) for tag in source}
        target = general(first)
        if target is None:                                 # to memory
            return state | {(_STACK, tag) for tag in held.of(general(second))} if second else state
        if i.mnemonic in _REPLACES:
            return held.replaced(target, _given(i, second, held))
        if i.mnemonic in ("add", "sub"):
            return held.replaced(target, self._sum(i, target, second, held))
        return state | {(target, tag) for tag in held.of(general(second))}

    def _note_memory(self, i: Instruction, held: _Held) -> None:
        memory = _MEMORY.search(i.operands)
        if memory is None or i.mnemonic == "nop":
            return
        registers = _registers(memory)
        tags = {tag for r in registers for tag in held.of(r)}
        for base in (_POINTER, _BLOCK):
            if base in tags or base == _POINTER and memory["segment"] and registers:
                self.found[base] |= {i.at, *tags} - {_POINTER, _BLOCK}

    def _sum(self, i: Instruction, target: str, source: str, held: _Held) -> set[int]:
        """What a register holds to which something is added."""
        tags = held.of(target)
        if source in _ZERO:
            self.found[_POINTER] |= tags - {_POINTER, _BLOCK}
            return {_POINTER}
        tags |= {i.at} if NUMBER.fullmatch(source) else held.of(general(source))
        bases = tags & {_POINTER, _BLOCK}
        for base in bases:
            self.found[base] |= tags - {_POINTER, _BLOCK}
        return tags - {i.at, *bases} if NUMBER.fullmatch(source) else tags


class _Held:
    """What each place may hold."""

    def __init__(self, state: State) -> None:
        self.state = state

    def of(self, place: str | None) -> set[int]:
        return {tag for where, tag in self.state if where == place}

    def replaced(self, place: str, tags: set[int]) -> State:
        return frozenset({(where, tag) for where, tag in self.state if where != place} | {(place, tag) for tag in tags})


def _given(i: Instruction, source: str, held: _Held) -> set[int]:
    """What a register holds that an instruction writes as a whole."""
    memory = _MEMORY.search(source)
    if i.mnemonic == "mov" and source in _ZERO:
        return {_POINTER}
    if i.mnemonic == "mov" and memory is None:
        return {i.at} if NUMBER.fullmatch(source) else held.of(general(source))
    if i.mnemonic == "mov" and memory is not None:
        return held.of(_STACK) if {"bp", "sp"} & set(_registers(memory)) else set()
    if i.mnemonic == "lea" and memory is not None and not _DISTANCE.search(memory["within"]):
        return {tag for r in _registers(memory) for tag in held.of(r)}
    return set()


def _registers(memory: re.Match[str]) -> list[str | None]:
    return [general(r) for r in _WORD.findall(memory["within"])]


def general(name: str) -> str | None:
    match = _GENERAL.fullmatch(name)
    return next(filter(None, match.groups())) if match else None
