"""Code of the new image, prepared for being walked beside other code: what has to be equal as it is, and what refers somewhere.

Most instructions refer to nothing outside of their function. Such neighbours are one step, whose bytes decide; of the code
on the other side nothing has to be decoded for that, since equal bytes are equal instructions.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .instructions import BRANCH, NUMBER, Instruction, decode, field_of, numbers, target_of
from .side import Side

_WIDTHS = {"byte": 1, "word": 2, "dword": 4, "qword": 8, "xmmword": 16, "ymmword": 32, "zmmword": 64, "tbyte": 10, "xword": 10,
           "fword": 6}
_WIDTH = re.compile(r"\b(?P<width>[a-z]*(?:byte|word)) ptr \[rip")
TEXT = -1
SHORT = 2                # bytes of a jump with an 8-bit displacement


class Differs(Exception):
    """The code on the other side has other bytes."""


class Reference(NamedTuple):
    """Where in its bytes an instruction says what it refers to, as a distance from its end."""
    field: int
    size: int            # of the field
    target: int
    goes: bool           # a branch; otherwise an operand
    width: int           # as `width_of` says it


class Step(NamedTuple):
    at: int                                  # offset in the code
    data: bytes                              # without the field of the reference
    token: bytes                             # for the digest
    reference: Reference | None = None
    odd: Instruction | None = None           # its numbers may refer to something: it is looked at by itself


def of(side: Side, code: bytes, start: int) -> list[Step]:
    """The steps of all these bytes, which lie at `start`."""
    found: list[Step] = []
    at, data, token = 0, b"", b""            # of the step that is being gathered
    end = 0
    for instruction in decode(code, start):
        end = instruction.at - start + instruction.size
        made = _alone(instruction, side, start, len(code))
        if made is None:
            data, token = data + instruction.data, token + own_token(instruction, start, len(code))
            continue
        if data:
            found.append(Step(at, data, token))
        found.append(made)
        at, data, token = end, b"", b""
    if data or end < len(code):              # what is no instruction has to be equal too
        found.append(Step(at, data + code[end:], token))
    return found


def _alone(i: Instruction, side: Side, start: int, size: int) -> Step | None:
    """The step of an instruction that refers to something; None for any other."""
    if "rip" in i.operands:
        target = target_of(i)
        if target is None:
            return Step(i.at - start, i.data, b"", odd=i)          # no code is the same as this
        field = field_of(i, target - i.at - i.size)
        if address_behind(i, field, side) is not None or side.is_module(target):
            return Step(i.at - start, i.data, token_of_place(i, field, target, side, start, size), odd=i)
        return _referring(i, side, start, size, Reference(field, 4, target, False, width_of(i, side, start, size)))
    if BRANCH.match(i.mnemonic) and i.operands.startswith("0x"):
        target = int(i.operands, 16)
        if start <= target < start + size:
            return None
        field = opcode_of(i)
        return _referring(i, side, start, size, Reference(field, i.size - field, target, True, 0))
    known = side.thread_offsets(start, size)
    is_offset = "fs:[0x" in i.operands or i.at in known.pointer or i.at in known.block
    if is_offset or side.absolute and any(map(side.may_be_address, numbers(i.operands))):
        return Step(i.at - start, i.data, token_of_numbers(i), odd=i)
    return None


def _referring(i: Instruction, side: Side, start: int, size: int, r: Reference) -> Step:
    token = b"|" + i.data[:r.field] + name_of(side, r.target, start, size) if r.goes else token_of_place(
        i, r.field, r.target, side, start, size)
    return Step(i.at - start, i.data[:r.field] + i.data[r.field + r.size:], token, r)


def address_behind(i: Instruction, field: int, side: Side) -> int | None:
    """The number that an instruction stores behind the field of where to, if in an absolute image it can be an address."""
    if not side.absolute or i.size - field != 8:
        return None
    number = int.from_bytes(i.data[-4:], "little")
    return number if side.may_be_address(number) else None


def token_of_place(i: Instruction, field: int, target: int, side: Side, start: int, size: int) -> bytes:
    """Of one with an operand relative to itself, on the new side."""
    behind = address_behind(i, field, side)
    blank = i.data[:field] + bytes(4) + (i.data[field + 4:] if behind is None else bytes(4))
    named = b"" if behind is None else b"=" + name_of(side, behind, start, size)
    return b"|" + blank + name_of(side, target, start, size) + named


def own_token(i: Instruction, start: int, size: int) -> bytes:
    """Of an instruction that refers to nothing outside of the code."""
    if BRANCH.match(i.mnemonic) and i.operands.startswith("0x"):
        return b"|" + i.data[:opcode_of(i)] + b"+%d" % (int(i.operands, 16) - start)
    return b"|" + i.data


def token_of_numbers(i: Instruction) -> bytes:
    """Of one whose numbers were compared by what they mean."""
    return b"|" + i.mnemonic.encode() + NUMBER.sub("N", i.operands).encode()


def opcode_of(i: Instruction) -> int:
    """How many bytes of a direct branch come before its distance."""
    return i.size - (1 if i.size == SHORT else 4)


def width_of(i: Instruction, side: Side, start: int, size: int) -> int:
    """Bytes of its operand's content that an instruction uses; 0: not told, TEXT: up to the first zero."""
    if i.at in side.texts(start, size):
        return TEXT
    match = _WIDTH.search(i.operands)
    return _WIDTHS.get(match["width"], 0) if match and i.mnemonic != "lea" else 0


def name_of(side: Side, address: int, start: int, size: int) -> bytes:
    """What a reference to `address` of the new image comes to, from code that lies at `start`."""
    if start <= address < start + size:
        return b"+%d" % (address - start)
    return "=".join(sorted(side.names_at(address))).encode("utf-8", "surrogateescape") or b"#"


def references(steps: list[Step], held: bytes, start: int) -> Iterator[tuple[Step, int]]:
    """Each step that is not decided by its bytes, with the address that `held`, other code at `start`, refers to in its place (of
    an odd one, where the instruction lies). Raises Differs at the first step whose bytes do."""
    for step in steps:
        r = step.reference
        if step.odd is not None:
            yield step, start + step.at
            continue
        if r is None:
            if held[step.at:step.at + len(step.data)] != step.data:
                raise Differs
            continue
        end = step.at + len(step.data) + r.size
        field = step.at + r.field
        if held[step.at:field] + held[field + r.size:end] != step.data:
            raise Differs
        yield step, start + end + int.from_bytes(held[field:field + r.size], "little", signed=True)
