"""Instructions of linked code: their lengths, and what each refers to on its side."""
from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from .. import arch
from .linked import Unreadable
from .side import Pointer, Side

_RIP = re.compile(r"\[rip (?P<sign>[+-]) (?P<distance>0x[0-9a-f]+|\d+)\]|\[rip\]")
NUMBER = re.compile(r"(?<![\w.])-?(?:0x[0-9a-f]+|\d+)(?!\w)")
_SIGNED = re.compile(r"(?<![\w.])(?:(?<= )- )?-?(?:0x[0-9a-f]+|\d+)(?!\w)")
BRANCH = re.compile(r"^(?:call|jmp|j\w+|loop\w*|jrcxz|jecxz|xbegin)$")


_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_REX_X, _REX_B, _REX_R = 2, 1, 4
_FILLER = 0x67           # the prefix by which linkers make a direct call as long as one through a word (psABI §B.2)


class Instruction(NamedTuple):
    at: int
    size: int
    mnemonic: str
    operands: str
    data: bytes


@lru_cache(maxsize=2048)       # the new image's code is asked for twice, and again with the next bundle
def decode(code: bytes, address: int) -> list[Instruction]:
    return [Instruction(at, size, _mnemonic(m, o), o, code[at - address:at - address + size])
            for at, size, m, o in arch.NATIVE.disassembly(code, address)]


def _mnemonic(said: str, operands: str) -> str:
    """Without prefixes; of a call or jump that takes the code segment from memory too ("ptr" of no size) with "far"."""
    name = said.rpartition(" ")[2]
    return f"far {name}" if name in ("call", "jmp") and operands.startswith("ptr [") else name


def plain(word: bytes, side: Side) -> Pointer | None:
    """The address that a word holds without a relocation, which it can only in an absolute image."""
    value = int.from_bytes(word, "little")
    return Pointer(value) if side.absolute and value >= 0x1000 and side.space.file_at(value) is not None else None


def target_of(instruction: Instruction) -> int | None:
    match = _RIP.search(instruction.operands)
    if match is None:
        return None
    distance = int(match["distance"], 0) if match["distance"] else 0
    return instruction.at + instruction.size + (-distance if match["sign"] == "-" else distance)


def field_of(instruction: Instruction, distance: int) -> int:
    """Where in the instruction the displacement lies; an immediate may follow it."""
    wanted = distance.to_bytes(4, "little", signed=True)
    for behind in (0, 1, 2, 4):
        at = instruction.size - 4 - behind
        if at > 0 and instruction.data[at:at + 4] == wanted:
            return at
    raise Unreadable(f"the displacement of the instruction at {instruction.at:#x} is not found")


def blanked(data: bytes, field_: int) -> bytes:
    return data[:field_] + bytes(4) + data[field_ + 4:]


def numbers(operands: str) -> list[int]:
    """Those in the text of an instruction, in order; distances in brackets with their sign."""
    return [int(n.replace(" ", ""), 0) for n in _SIGNED.findall(operands)]


def may_be_offsets(operands: str) -> list[bool]:
    """Of each of these numbers, whether it may be a distance from what a register holds: in brackets, where there are some."""
    brackets = operands.find("["), operands.find("]")
    return [operands[n.start() - 1] != "*" and (brackets[0] < 0 or brackets[0] < n.start() < brackets[1])
            for n in _SIGNED.finditer(operands)]


def differ_in(one: bytes, two: bytes, pairs: list[tuple[int, int]]) -> bool:
    """Whether two encodings of one length differ in nothing but these numbers."""
    mine, other = bytearray(one), bytearray(two)
    for a, b in pairs:
        places = ((at, width) for width in (8, 4, 2, 1) for at in range(1, len(one) - width + 1)
                  if mine[at:at + width] == _encoded(a, width) and other[at:at + width] == _encoded(b, width))
        at, width = next(places, (0, 0))
        mine[at:at + width] = other[at:at + width] = bytes(width)
    return mine == other


def _encoded(number: int, width: int) -> bytes:
    return (number & (1 << 8 * width) - 1).to_bytes(width, "little")


def has_idle_bits(instruction: Instruction) -> bool:
    """Whether an extension prefix says what processors ignore in this form: disassembled, it looks like one without."""
    opcode = next((i for i, byte in enumerate(instruction.data) if byte not in _PREFIXES), 0)
    rex = instruction.data[opcode]
    if rex & 0xF0 != 0x40:
        return False
    if "[rip" in instruction.operands:
        return bool(rex & (_REX_X | _REX_B))
    if re.fullmatch(r"\w+, -?(?:0x[0-9a-f]+|\d+)", instruction.operands):
        return bool(rex & (_REX_X | _REX_R))
    return bool("fs:[0" in instruction.operands and rex & _REX_B)


def signed(value: int) -> int:
    """Capstone prints a displacement of fs as unsigned, of 32 or 64 bits."""
    if value >= 1 << 63:
        return value - (1 << 64)
    return value - (1 << 32) if 1 << 31 <= value < 1 << 32 else value


def held_in(side: Side, address: int) -> Pointer | None:
    """The address in a word: by its relocation, or as an absolute image has it."""
    return side.pointer(address) or plain(side.space.read(address, 8), side)


def loads(instruction: Instruction, side: Side) -> tuple[str, Pointer] | None:
    """(register, what it is given) of an instruction that loads an address."""
    register, _, rest = instruction.operands.partition(", ")
    target = target_of(instruction)
    if instruction.mnemonic == "lea" and target is not None:
        return None if side.is_module(target) else (register, Pointer(target))
    if instruction.mnemonic == "mov" and target is not None and rest.startswith("qword ptr [rip"):
        held = held_in(side, target) if side.space.file_at(target, 8) is not None else None
        return (register, held) if held is not None and held.kind == "address" else None
    if instruction.mnemonic == "mov" and re.fullmatch(r"0x[0-9a-f]+", rest) and side.absolute:
        return register, Pointer(int(rest, 16))
    return None


def goes(instructions: list[Instruction], side: Side) -> tuple[str, Pointer, int] | None:
    """("call" or "jmp", where to, instructions) of six bytes that go somewhere."""
    first = instructions[0]
    if first.mnemonic not in ("call", "jmp"):
        return None
    target = target_of(first)
    if target is not None and first.size == 6:
        held = held_in(side, target)
        return (first.mnemonic, held, 1) if held is not None else None
    if not first.operands.startswith("0x"):
        return None
    goal = Pointer(int(first.operands, 16), side.linkage.get(int(first.operands, 16), ""))
    if first.size == 6:
        return (first.mnemonic, goal, 1) if first.data[0] == _FILLER else None
    if first.size == 5 and len(instructions) > 1 and instructions[1].mnemonic == "nop" and instructions[1].size == 1:
        return first.mnemonic, goal, 2
    return None


def offset_loaded(instruction: Instruction, side: Side) -> tuple[str, int] | None:
    """(register, offset from the thread pointer) of an instruction that loads one, or adds it to the register (then "+" is part
    of its name)."""
    register, _, rest = instruction.operands.partition(", ")
    target = target_of(instruction)
    if instruction.mnemonic not in ("mov", "add", "lea"):
        return None
    given = register if instruction.mnemonic == "mov" else f"{register}+"
    if target is not None and instruction.mnemonic != "lea" and side.space.file_at(target, 8) is not None:
        held = side.pointer(target)
        if held is not None and held.kind == "tls" and held.address is not None:
            return given, held.address - side.tls_size
        value = int.from_bytes(side.space.read(target, 8), "little", signed=True) if held is None else 0
        return (given, value) if -side.tls_size <= value < 0 else None
    found = re.fullmatch(r"-?0x[0-9a-f]+|-\d+", rest) or re.fullmatch(rf"\[{register} ([+-] 0x[0-9a-f]+)\]", rest)
    if found is None:
        return None
    value = signed(int((found[1] if found.lastindex else found[0]).replace(" ", ""), 0))
    return (given, value) if -side.tls_size <= value < 0 else None


def tls_address(instructions: list[Instruction], side: Side) -> tuple[int | str | None, int, int] | None:
    """(offset in the block, the name of another file's, or None for the block's start; bytes; instructions) of code that puts
    a thread-local's address into %rax."""
    if len(instructions) < 2:
        return None
    first, second = instructions[:2]
    target = target_of(first)
    calls = second.mnemonic == "call" and "__tls_get_addr" in _called(second, side)
    if first.mnemonic == "lea" and first.operands.startswith("rdi, ") and target is not None and calls:
        if not side.is_module(target):
            return None
        held = side.pointer(target + 8)
        offset = int.from_bytes(side.space.read(target + 8, 8), "little") if held is None else held.name
        if held is not None and held.address is not None:
            offset = held.address
        is_start = first.size == 7 and offset == 0
        return None if is_start else offset, first.size + second.size, 2
    if first.mnemonic == "mov" and first.operands in ("rax, qword ptr fs:[0]", "rax, qword ptr fs:[0x0]"):
        if first.size >= 12:
            return None, first.size, 1
        match = re.fullmatch(r"rax, \[rax ([+-]) (0x[0-9a-f]+|\d+)\]", second.operands)
        if second.mnemonic == "lea" and match:
            value = int(match[2], 0) * (-1 if match[1] == "-" else 1)
            return value + side.tls_size, first.size + second.size, 2
    return None


def block_calls(code: bytes, address: int, side: Side) -> frozenset[int]:
    """Calls that return the start of the block of thread-locals: the local dynamic model."""
    listed = decode(code, address)
    found = ((second, tls_address([first, second], side)) for first, second in zip(listed, listed[1:])
             if second.mnemonic == "call" and first.operands.startswith("rdi, "))
    return frozenset(call.at for call, what in found if what is not None and what[0] is None)


def _called(instruction: Instruction, side: Side) -> frozenset[str]:
    target = target_of(instruction)
    if target is not None:
        held = side.pointer(target)
        return frozenset({held.name}) if held is not None else frozenset()
    return side.names_at(int(instruction.operands, 16)) if instruction.operands.startswith("0x") else frozenset()


def targets(code: bytes, address: int) -> Iterator[int]:
    """Every address that code refers to."""
    for instruction in decode(code, address):
        yield from references(instruction)


def references(instruction: Instruction) -> list[int]:
    """The addresses that it refers to, if its numbers are some."""
    target = target_of(instruction)
    if target is not None:
        return [target]
    if instruction.operands.startswith("0x") and BRANCH.match(instruction.mnemonic):
        return [int(instruction.operands, 16)]
    return numbers(instruction.operands)
