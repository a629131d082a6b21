"""x86-64 as tables.

Relocation numbers and meanings: System V psABI for AMD64, version 1.0, §4.4 (table 4.9) and §B.2 for the
GOTPCRELX kinds. Registers in unwind tables: §3.6.2, figure 3.36. Property notes: Linux extensions to gABI.
"""
from __future__ import annotations

import re
import struct
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

EM = 62
NAME = "x86_64"
EMULATION = "elf_x86_64"      # what GNU ld calls it
PAGE = 4096                     # granularity of mapping; payload segments are aligned to it

# ---- relocations --------------------------------------------------------------------------------
R_NONE, R_64, R_PC32, R_PLT32, R_GOTPCREL, R_32, R_32S = 0, 1, 2, 4, 9, 10, 11
R_RELATIVE = 8
R_PC64, R_GOTOFF64 = 24, 25
R_PC8 = 15
R_DTPOFF64, R_TLSGD, R_TLSLD, R_DTPOFF32, R_GOTTPOFF, R_TPOFF32, R_TPOFF64 = 17, 19, 20, 21, 22, 23, 18
R_GOTPC32_TLSDESC, R_TLSDESC_CALL = 34, 35
R_GOTPCRELX, R_REX_GOTPCRELX, R_PLTOFF64 = 41, 42, 31

ABSOLUTE = frozenset({R_64, R_32, R_32S})                 # S + A
ABSOLUTE_POINTER = R_64                                    # what a slot holds
ABSOLUTE_32 = frozenset({R_32, R_32S})                    # fit no position-independent payload
PC_RELATIVE = frozenset({R_PC32, R_PLT32, R_PC64})        # S + A - P
PC32, CALL32, SHORT_JUMP = R_PC32, R_PLT32, R_PC8
GOT = frozenset({R_GOTPCREL, R_GOTPCRELX, R_REX_GOTPCRELX})   # address of the symbol's GOT entry - P
BASE_RELATIVE = frozenset({R_GOTOFF64, R_PLTOFF64})       # large code model: relative to the GOT
ADDRESS = ABSOLUTE | PC_RELATIVE | GOT | BASE_RELATIVE    # all that yield a symbol's address one way or another
TLS_LOCAL_EXEC, TLS_LOCAL_EXEC_64 = R_TPOFF32, R_TPOFF64  # offset from the thread pointer, in the code
TLS_INITIAL_EXEC = R_GOTTPOFF                             # PC-relative address of a word with that offset
TLS_GENERAL, TLS_LOCAL_DYNAMIC = R_TLSGD, R_TLSLD         # PC-relative address of (module, offset)
TLS_OFFSET = {R_DTPOFF32: 4, R_DTPOFF64: 8}               # offset in the module's block; width in bytes
TLS_DESCRIPTOR = frozenset({R_GOTPC32_TLSDESC, R_TLSDESC_CALL})
PC_BIAS = 4                                               # a PC-relative field usually ends its instruction

_WIDE = frozenset({R_64, R_PC64, R_GOTOFF64, R_PLTOFF64, R_DTPOFF64, R_TPOFF64, 16, 27, 28, 29, 30, 33})
_NARROW = {12: 2, 13: 2, 14: 1, R_PC8: 1, R_NONE: 0, R_TLSDESC_CALL: 0}


def width(type: int) -> int:
    """Bytes of the field that a relocation of this type fills."""
    return 8 if type in _WIDE else _NARROW.get(type, 4)


def tls_offset(value: int, memsz: int, align: int) -> int:
    """Thread-pointer offset of byte `value` of the executable's TLS block (psABI §3.4.6, TLS variant II)."""
    return value - (memsz + (-memsz % max(align, 1)))


# ---- stubs --------------------------------------------------------------------------------------
STUB_ALIGN = 8
_JMP_SLOT = b"\xff\x25"                        # jmp *disp32(%rip)
_ENDBR64 = b"\xf3\x0f\x1e\xfa"
_NOTRACK = b"\x3e"                             # a static function's body may lack endbr64


class Stub(NamedTuple):
    code: bytes
    slot_field: int       # offset of the 4-byte PC-relative field that takes the slot's address


def stub(branch_protection: bool) -> Stub:
    """The code that jumps to where the slot points, keeping every register."""
    head = _ENDBR64 + _NOTRACK if branch_protection else b""
    code = head + _JMP_SLOT + b"\0\0\0\0"
    return Stub(code + b"\xcc" * (-len(code) % STUB_ALIGN), len(head) + len(_JMP_SLOT))


# Heads (HOTRELOAD_STUBS=entry): what `-fpatchable-function-entry` leaves before a function's entry takes a stub, and two bytes
# behind it, one instruction that does nothing, can become a jump to that stub. runtime/arch/x86_64.h reads them too.
HEAD_ROOM, HEAD_SIZE = 16, 2
HEAD_FLAG = f"-fpatchable-function-entry={HEAD_ROOM + HEAD_SIZE},{HEAD_ROOM}"
HEAD_END = len(_ENDBR64) + HEAD_SIZE            # bytes from the entry to behind a head, at most
_IDLE = b"\x66\x90"                            # xchg %ax,%ax
_NOP = b"\x90"
_HEAD_STUB = _NOTRACK + _JMP_SLOT + b"\0\0\0\0"       # ends at the entry


HEAD_STUB_SIZE = len(_HEAD_STUB)
_CALL, _JUMP = b"\xe8", b"\xe9"                # call rel32, jmp rel32


def is_call(code: bytes, offset: int, type: int, addend: int) -> bool:
    """Whether the field that a relocation fills in is where a call or a jump to its symbol itself leads. Before an operand in
    memory stands a ModRM byte, which is neither."""
    return type in (R_PLT32, R_PC32) and addend == -4 and code[offset - 1:offset] in (_CALL, _JUMP)


def head_at(code: bytes, entry: int) -> int | None:
    """Where the two bytes lie of a function that begins at `entry` (behind endbr64, where it begins with that); None: the
    compiler left no room. Two bytes at an even address lie in one line of the instruction cache."""
    at = entry + len(_ENDBR64) if code.startswith(_ENDBR64, entry) else entry
    room = entry >= HEAD_ROOM and code[entry - HEAD_ROOM:entry] == _NOP * HEAD_ROOM
    return at if room and at % 2 == 0 and code[at:at + HEAD_SIZE] in (_NOP * HEAD_SIZE, _IDLE) else None


def with_head(code: bytes, entry: int, at: int) -> tuple[bytes, int]:
    """`code` with a stub before `entry` and an idle head at `at`; where the stub's field for the slot lies."""
    room = b"\xcc" * (HEAD_ROOM - len(_HEAD_STUB)) + _HEAD_STUB
    return code[:entry - HEAD_ROOM] + room + code[entry:at] + _IDLE + code[at + HEAD_SIZE:], entry - 4


def armed_head(entry: int, at: int) -> bytes:
    """The head at `at` as a jump to the stub before `entry`."""
    return struct.pack("<Bb", 0xeb, entry - len(_HEAD_STUB) - at - HEAD_SIZE)


UNWIND_STUB = {"return_column": 16, "stack_pointer": 7, "cfa_offset": 8, "code_align": 1, "data_align": -8}

_NOTE_GNU_PROPERTY, _FEATURE_1_AND, _IBT = 5, 0xc0000002, 1


def has_branch_protection(note: bytes) -> bool:
    """Whether a `.note.gnu.property` section marks the object for indirect-branch tracking."""
    at = 0
    while at + 16 <= len(note):
        namesz, descsz, kind = struct.unpack_from("<III", note, at)
        desc = at + 12 + namesz + (-namesz % 4)
        if kind == _NOTE_GNU_PROPERTY and _and_feature(note[desc:desc + descsz]) & _IBT:
            return True
        at = desc + descsz + (-descsz % 8)
    return False


def _and_feature(desc: bytes) -> int:
    at = 0
    while at + 8 <= len(desc):
        kind, size = struct.unpack_from("<II", desc, at)
        if kind == _FEATURE_1_AND and size == 4 and at + 12 <= len(desc):
            return int(struct.unpack_from("<I", desc, at + 8)[0])
        at += 8 + size + (-size % 8)
    return 0


# ---- code that refers to its own section without a relocation -----------------------------------
_DIRECT = re.compile(rb"(?=(\xe8)|(\xe9|\x0f[\x80-\x8f])|([\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d])"
                     rb"|(\xeb|[\x70-\x7f]))", re.DOTALL)


class DirectReference(NamedTuple):
    kind: str             # "call" | "jump" | "short" | "address"
    instruction: int      # offset of the first byte
    field: int            # offset of the displacement
    target: int           # offset it reaches


def direct_references(code: bytes, targets: frozenset[int], jumps: bool) -> Iterator[DirectReference]:
    """Byte patterns that *may* be instructions reaching one of `targets`; confirm with `instructions`.

    `jumps`: look for jumps as well as for calls and addresses.
    """
    size = len(code)
    for match in _DIRECT.finditer(code):
        call, jump, lea, short = match.groups()
        at = match.start()
        if short is not None:
            if jumps and at + 2 <= size and (target := at + 2 + struct.unpack_from("<b", code, at + 1)[0]) in targets:
                yield DirectReference("short", at, at + 1, target)
            continue
        if jump is not None and not jumps:
            continue
        opcode = call or jump or lea
        field = at + len(opcode)
        if field + 4 > size:
            continue
        target = field + 4 + struct.unpack_from("<i", code, field)[0]
        if target in targets:
            yield DirectReference("call" if call else "jump" if jump else "address", at, field, target)


_LEA = re.compile(rb"(?=\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d])", re.DOTALL)


def addresses_made(code: bytes) -> Iterator[int]:
    """Offsets from the start of `code` to which any bytes of it lead that may be `lea disp32(%rip)`: of position-independent
    code that is the one instruction that makes an address (Intel SDM, volume 2, table 2-7: RIP-relative addressing)."""
    for match in _LEA.finditer(code, 0, max(len(code) - 5, 0)):
        field = match.start() + 2
        yield field + 4 + int(struct.unpack_from("<i", code, field)[0])


def instructions(code: bytes) -> Iterable[tuple[int, int]]:
    """(offset, size) of each instruction, decoded from the start; ends where decoding fails."""
    return ((at, size) for at, size, _, _ in _engine().disasm_lite(code, 0))


def disassembly(code: bytes, address: int) -> Iterable[tuple[int, int, str, str]]:
    """(address, size, mnemonic, operands in Intel syntax) of each instruction, decoded from the start; ends where
    decoding fails."""
    found: Iterable[tuple[int, int, str, str]] = _engine().disasm_lite(code, address)
    return found


_engines = threading.local()          # one cannot be used by several threads at a time, and takes a while to make


def _engine() -> Any:
    if not hasattr(_engines, "engine"):
        import capstone

        _engines.engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return _engines.engine


def is_jump(code: bytes, field: int) -> bool:
    """Whether the 4-byte field at `field` is the displacement of a jump (not of a call)."""
    return code[field - 1:field] == b"\xe9" or (field >= 2 and code[field - 2] == 0x0f and code[field - 1] & 0xf0 == 0x80)


def goes_through_word(code: bytes, field: int) -> bool:
    """Whether the field at `field` is the whole operand of `call *disp32(%rip)` or `jmp *disp32(%rip)`."""
    return field >= 2 and code[field - 2:field] in (b"\xff\x15", b"\xff\x25")


# Registers that take the 2nd to 6th argument (psABI §3.2.3), the 1st too, and the stack pointer, through which others go.
_ARGUMENTS = frozenset("edi esi edx ecx r8d r9d rdi rsi rdx rcx r8 r9".split())


def argument(code: bytes) -> tuple[int, int, int] | None:
    """(value, offset, width) of the immediate of one instruction that passes it to a call; None for any other."""
    import capstone
    from capstone import x86

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    found = next(engine.disasm(code, 0, 1), None)
    if found is None or found.size != len(code) or not found.imm_size:
        return None
    target, immediate = found.operands[0], found.operands[-1]
    if immediate.type != x86.X86_OP_IMM or found.id not in (x86.X86_INS_MOV, x86.X86_INS_PUSH):
        return None
    if found.id == x86.X86_INS_MOV:
        by_register = target.type == x86.X86_OP_REG and found.reg_name(target.reg) in _ARGUMENTS
        on_stack = target.type == x86.X86_OP_MEM and found.reg_name(target.mem.base) == "rsp" and not target.mem.index
        if not by_register and not on_stack:
            return None
    return int(immediate.imm), found.imm_offset, found.imm_size


# `mov` of an immediate to one of these registers (B8 + register, C7 /0; 0 only with the prefix that makes it r8) or to what
# the stack pointer leads to (C6 /0, C7 /0 with a SIB byte), and `push` (68, 6A), up to the immediate, which ends the instruction
# (Intel SDM, volume 2, tables 2-2 and 2-3).
_BEFORE_ARGUMENT = re.compile(
    rb"[\xb9\xba\xbe\xbf\x68\x6a]|\xc7[\xc1\xc2\xc6\xc7]|[\x41-\x4f](?:\xb8|\xc7\xc0)|"
    rb"[\xc6\xc7](?:\x04[$d\xa4\xe4]|D[$d\xa4\xe4].|\x84[$d\xa4\xe4].{4})", re.DOTALL)
_LONGEST_BEFORE = 7


def may_be_in_argument(code: bytes, at: int) -> bool:
    """Whether the byte at `at` may belong to an immediate that `argument` finds in some instruction of `code`. False is certain,
    without knowing where instructions begin."""
    found = (_BEFORE_ARGUMENT.match(code, start) for start in range(max(at - _LONGEST_BEFORE - 3, 0), at))
    return any(match is not None and match.end() <= at < match.end() + 4 for match in found)
