"""The wall between process and tool, as Python reads it: layouts of runtime/hotreload_abi.h, codes of hr_codes.def.

The C header is the definition. `tests/unit/test_abi.py` compiles it and compares every size, offset and number with
what is here. All integers are little-endian.
"""
from __future__ import annotations

import enum
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ABI = 4                          # HR_ABI
ID_SIZE = 32                     # bytes of a payload's id
BUILD_ID_MAX = 32                # bytes
MAX_PAYLOADS = 64                # of one request
MAX_GUARD_MS = 3600000

PAYLOAD_MAGIC = 0x31444C5059415052
SIGNATURE_MAGIC = b"HRSIGN\0\1"
SIGNED_PREFIX = b"hotreload payload\0"
KEY_SIZE = 32                    # bytes of a public key
REQUEST_MAGIC = 0x31515248
REPLY_MAGIC = 0x31505248
BALLOT_MAGIC = 0x31425248

BALLOT_READY = 0xFFF             # bits of a ballot's state that count who is ready; so also how many may be asked
BALLOT_DECISION_SHIFT = 30       # the bits of its state from here on are a Decision

NOTE_IMAGE = 1                   # type of the PT_NOTE with owner names.NOTE_OWNER

# struct hr_payload up to the tables: magic, abi, size, generation, id, parent, build_id, build_id_size, flags
PAYLOAD_HEAD = struct.Struct("<QIIQ32s32s32sII")
_TABLES = ("redirects", "updates", "eh_frame", "tls_modules", "init_array", "parts", "heads")
# name -> offset of the pointer in struct hr_payload; the u64 behind it counts entries (of eh_frame: bytes)
PAYLOAD_TABLES: Mapping[str, int] = {name: PAYLOAD_HEAD.size + 16 * i for i, name in enumerate(_TABLES)}
PAYLOAD_SIZE = PAYLOAD_HEAD.size + 16 * len(_TABLES)

REDIRECT = struct.Struct("<QQQQQ")           # slot, old_target, new_target, old_size, new_size
PART = struct.Struct("<QQQ")                 # start, size, redirect
HEAD = struct.Struct("<QQ")                  # at, redirect
UPDATE = struct.Struct("<QQQQQ")             # address, old_content, new_content, size, flags
SIGNATURE = struct.Struct("<8s32s64s")       # magic, key, signature: struct hr_signature
# magic, abi, op, flags, when, timeout_ms, n_payloads, generation, build_id, guard_ms
REQUEST = struct.Struct("<IHHIIIIQ32sQ")
REPLY = struct.Struct("<IHHI")               # magic, abi, code, length of the JSON that follows
BALLOT = struct.Struct("<IIII")              # magic, members, withdrawn, state
BALLOT_WITHDRAWN = 8                         # offset in it


class PayloadFlags(enum.IntFlag):
    TRANSIENT = 1


class UpdateFlags(enum.IntFlag):
    CONSTANT = 1
    MERGE = 2
    THREADS = 4


class Op(enum.IntEnum):
    STATUS = 1
    APPLY = 2
    REVERT = 3


class When(enum.IntEnum):
    NOW = 0
    QUIESCENT = 1
    SAFEPOINT = 2


class RequestFlags(enum.IntFlag):
    DRY_RUN = 1
    TOGETHER = 2     # one more descriptor follows the payloads: a ballot
    FOR_LATER = 4    # payloads for libraries that are not loaded are kept


class Decision(enum.IntEnum):
    UNDECIDED = 0
    COMMITTED = 1
    ABANDONED = 2


def runtime_directory() -> Path:
    """Where the runtime's sources are: inside an installed package, or beside it in the repository."""
    packaged = Path(__file__).resolve().parent / "runtime"
    return packaged if packaged.is_dir() else packaged.parent.parent / "runtime"


class CodeEntry(NamedTuple):
    """One line of hr_codes.def."""
    name: str
    number: int
    exit_code: int     # of the command line
    sentence: str


_ENTRY = re.compile(r'^HR_CODE\(\s*(\w+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*"((?:[^"\\]|\\.)*)"\s*\)', re.MULTILINE)


def parse_codes(text: str) -> list[CodeEntry]:
    """The entries of hr_codes.def, in order. Raises ValueError if a line that begins one can't be read."""
    entries = [CodeEntry(name, int(number), int(exit_code), sentence)
               for name, number, exit_code, sentence in _ENTRY.findall(text)]
    begun = len(re.findall(r"^HR_CODE\b", text, re.MULTILINE))
    if begun != len(entries):
        raise ValueError(f"hr_codes.def: {begun} entries begin, {len(entries)} can be read")
    return entries


CODES: Mapping[str, CodeEntry] = {
    entry.name: entry for entry in parse_codes((runtime_directory() / "hr_codes.def").read_text(encoding="utf-8"))}


class CodeBase(enum.IntEnum):
    """What an agent answers. The members come from hr_codes.def: `Code["BUSY"]`, `Code(15)`."""

    @property
    def entry(self) -> CodeEntry:
        return CODES[self.name]


Code: type[CodeBase] = CodeBase("Code", {entry.name: entry.number for entry in CODES.values()})  # type: ignore[call-arg, arg-type, assignment]


def pack_payload(generation: int, identity: bytes, parent: bytes, build_id: bytes,
                 flags: PayloadFlags | int = 0) -> bytes:
    """struct hr_payload with empty tables.

    `identity` and `parent` have ID_SIZE bytes, `build_id` has 1 to BUILD_ID_MAX. Raises ValueError.
    """
    if len(identity) != ID_SIZE or len(parent) != ID_SIZE:
        raise ValueError(f"ids of {len(identity)} and {len(parent)} bytes; they have {ID_SIZE}")
    if not 1 <= len(build_id) <= BUILD_ID_MAX:
        raise ValueError(f"a build-id of {len(build_id)} bytes; supported are 1 to {BUILD_ID_MAX}")
    head = PAYLOAD_HEAD.pack(PAYLOAD_MAGIC, ABI, PAYLOAD_SIZE, generation, identity, parent, build_id, len(build_id), flags)
    return head + bytes(PAYLOAD_SIZE - len(head))


def pack_request(op: Op, n_payloads: int = 0, *, dry_run: bool = False, together: bool = False, for_later: bool = False,
                 when: When = When.NOW, timeout_ms: int = 0, generation: int = 0, build_id: bytes = b"",
                 guard_ms: int = 0) -> bytes:
    """struct hr_request. `timeout_ms` is cut to what 32 bits hold; `generation` and `build_id` are for a revert, `for_later`
    and `guard_ms` for an apply."""
    flags = RequestFlags.DRY_RUN * dry_run | RequestFlags.TOGETHER * together | RequestFlags.FOR_LATER * for_later
    return REQUEST.pack(REQUEST_MAGIC, ABI, op, flags, when, min(max(timeout_ms, 0), 0xFFFFFFFF), n_payloads,
                        generation, build_id, guard_ms)


def as_dry_run(request: bytes) -> tuple[int, bytes | None]:
    """(number of payloads, the same request as a dry run) of a struct hr_request; None instead of one that changes nothing."""
    fields = list(REQUEST.unpack(request))
    op, flags, n_payloads = fields[2], fields[3], fields[6]
    if op == Op.STATUS or flags & RequestFlags.DRY_RUN:
        return n_payloads, None
    fields[3], fields[9] = flags & ~RequestFlags.TOGETHER | RequestFlags.DRY_RUN, 0
    return n_payloads, REQUEST.pack(*fields)
