"""Which addresses in code are those of texts that end with their first zero: what they are given to reads no further.

Only what is followed surely counts: from the instruction straight on to the call of a library function, in registers.
"""
from __future__ import annotations

import re

from .instructions import Instruction, decode, references, target_of
from .side import Side
from .threadpointer import KEPT, general

_ARGUMENTS = ("di", "si", "d", "c", "8", "9")          # psABI §3.2.3
# Functions of C and C++ libraries -> the places of their arguments that are texts, by the standards.
_TEXTS = {
    "puts": (0,), "fputs": (0,), "printf": (0,), "fprintf": (1,), "sprintf": (1,), "snprintf": (2,), "perror": (0,),
    "strlen": (0,),
    "__printf_chk": (1,), "__fprintf_chk": (2,), "__sprintf_chk": (3,), "__snprintf_chk": (4,), "getenv": (0,), "atoi": (0,),
    "strcmp": (0, 1), "strcpy": (1,), "strcat": (1,), "strstr": (0, 1), "fopen": (0, 1),
    "_ZStlsISt11char_traitsIcEERSt13basic_ostreamIcT_ES5_PKc": (1,)}
# -> the places of the text and of how many bytes of it are read.
_SIZED = {
    "_ZSt16__ostream_insertIcSt11char_traitsIcEERSt13basic_ostreamIT_T0_ES6_PKS3_l": (1, 2),
    "_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE9_M_appendEPKcm": (1, 2),
    "_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE10_M_replaceEmmPKcm": (3, 4)}
# What may come before the call: each writes its first operand alone, and reads what its text names.
_PLAIN = frozenset({"mov", "movabs", "lea", "xor", "add", "sub", "pop", "nop", "movzx", "movsx", "movsxd", "movss", "movsd",
                    "movaps", "movups", "movd", "movq", "pxor", "cvtss2sd"})
_WHOLE = re.compile(r"0x[0-9a-f]+|\d+")
_FULL = re.compile(r"[er][a-z]{2}|r\d+d?")        # registers that are written as a whole


def given(side: Side, code: bytes, start: int) -> frozenset[int]:
    """Addresses of the instructions that load such an address, and nothing else is done with it."""
    listed = decode(code, start)
    return frozenset(i.at for number, i in enumerate(listed) if _loads(i) and _is_text(side, listed, number))


def _loads(i: Instruction) -> bool:
    first, _, second = i.operands.partition(", ")
    return general(first) is not None and (i.mnemonic == "lea" and target_of(i) is not None
                                           or i.mnemonic in ("mov", "movabs") and _WHOLE.fullmatch(second) is not None)


def _is_text(side: Side, listed: list[Instruction], number: int) -> bool:
    held = {general(listed[number].operands.partition(", ")[0])}
    text = references(listed[number])[0]
    sizes: dict[str | None, int] = {}
    for i in listed[number + 1:]:
        if i.mnemonic == "call" or i.mnemonic == "jmp" and not _stays(i, listed):
            return not (i.mnemonic == "call" and held & KEPT) and _takes(side, i, held, text, sizes)
        first, _, second = i.operands.partition(", ")
        target = general(first)
        if i.mnemonic not in _PLAIN:
            return False
        if i.mnemonic == "mov" and target is not None and general(second) in held and len(second) == 3:
            held.add(target)
            continue
        if _mentions(second, held) or target is None and _mentions(first, held):
            return False
        if target in held and i.mnemonic not in ("mov", "movabs", "lea"):
            return False
        held.discard(target)
        sizes.pop(target, None)
        if i.mnemonic == "mov" and _WHOLE.fullmatch(second) and _FULL.fullmatch(first):
            sizes[target] = int(second, 0)
    return False


def _stays(i: Instruction, listed: list[Instruction]) -> bool:
    last = listed[-1]
    return i.operands.startswith("0x") and listed[0].at <= int(i.operands, 16) < last.at + last.size


def _mentions(operands: str, held: set[str | None]) -> bool:
    return any(general(word) in held for word in re.findall(r"\w+", operands) if general(word) is not None)


def _takes(side: Side, call: Instruction, held: set[str | None], text: int, sizes: dict[str | None, int]) -> bool:
    """Whether the function that is called reads it as a text, and nothing else that the registers are for."""
    name = _imported(side, call)
    places = {_ARGUMENTS.index(r) for r in held if r in _ARGUMENTS}
    if name in _SIZED:
        where, size = _SIZED[name]
        read = sizes.get(_ARGUMENTS[size], -1)
        lies = read >= 0 and side.space.file_at(text, max(read, 1)) is not None
        return lies and places == {where} and 0 not in side.read(text, read)
    return bool(places) and places <= set(_TEXTS.get(name, ()))


def _imported(side: Side, call: Instruction) -> str:
    """The function of a library that is called; "" for any other."""
    target = target_of(call)
    if target is None:
        return side.linkage.get(int(call.operands, 16), "") if call.operands.startswith("0x") else ""
    pointer = side.pointer(target) if side.space.file_at(target, 8) is not None else None
    return pointer.name if pointer is not None and pointer.address is None else ""
