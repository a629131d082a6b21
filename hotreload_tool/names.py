"""Every name that hotreload makes up, in one place.

The suffixes have the form that demanglers know from compiler clones, so that a
backtrace shows ``draw(Canvas&) [clone .hr_body]``.
"""
from __future__ import annotations

from urllib.parse import quote

BODY_SUFFIX = ".hr_body"      # the function's code, behind its stub
SLOT_SUFFIX = ".hr_slot"      # the pointer its stub jumps through
STUB_SUFFIX = ".hr_stub"      # in a payload: the stub beside the code that it brings, past the head that leads there
CALL_SUFFIX = ".hr_call"      # what other units' calls go through: the slot, or a word with the address
LOCAL_SEPARATOR = "~"         # NAME~OBJECT: a file-local symbol made unique in the image

SLOT_SECTION = ".data.rel.ro.hr_slot"   # falls into RELRO with every default linker script
CALL_SECTION = ".data.rel.ro.hr_call"   # a caller's own word
MAP_SECTION = ".hotreload.map"          # object maps, not allocated, concatenated by the linker
PAYLOAD_SECTION = ".hotreload.payload"  # payload header and tables, see runtime/hotreload_abi.h
RUNTIME_PREFIX = "hotreload_"           # what programs may call of the runtime: runtime/hotreload.h
TLS_RESERVE = "hr_tls_reserve"          # the runtime's room for thread-locals that patches bring
PAYLOAD_SYMBOL = "hr_payload"           # e_entry of a payload: address of its header
NOTE_OWNER = b"hotreload\0"             # PT_NOTE by which an agent finds instrumented images


def made_up(name: str, suffix: str) -> str:
    """What belongs to `name`. No '@': linkers read a version there. Names that are not UTF-8 come as `elf` reads them."""
    return quote(name, safe="/._-+=,()[]{}!#$&*^~%", errors="surrogateescape") + suffix


def object_name(path: str) -> str:
    """The identity of an object: its build-relative path, safe inside a symbol name.

    Linkers read ``@`` as a symbol version, and tools split listings at white space. A path that is not UTF-8 comes as
    `os.fsdecode` gives it. `urllib.parse.unquote` gives the path back.
    """
    return quote(path, safe="/._-+=,()[]{}!#$&*^", errors="surrogateescape")


def unique_local(symbol: str, obj: str) -> str:
    """The image-wide unique name of file-local `symbol` of object `obj`."""
    return f"{symbol}{LOCAL_SEPARATOR}{obj}"
