"""Whether a payload is transient (HR_PAYLOAD_TRANSIENT): once its functions are superseded, and no thread or coroutine is in
them, it can be unmapped, because nothing else in the process can have an address of it.

That is so if it brings no function, variable or table that the program could keep a pointer to. Of position-independent
code it can be shown from the bytes: an address of the payload comes into being only where `lea` makes one, or where the
agent relocates a word; calls and jumps make return addresses alone.
"""
from __future__ import annotations

import struct
from types import ModuleType

from . import elf, names
from .elf import Elf, Section

JUMP_TABLES = ".rodata.hr_jumps"      # input sections: distances between code and table, loaded and added, never passed on
_OUT_OF_REACH = ".hr.jumps"           # the output section of these
_PC_RELATIVE_ENTRY = 4                # bytes
_RELA = struct.Struct("<QQq")


def set_jump_tables_apart(obj: Elf, cpu: ModuleType) -> None:
    """Give read-only sections of `obj` that hold jump tables and nothing else a name by which the link keeps them apart."""
    for section in obj.sections:
        if section.name.startswith(".rodata") and section.flags & ~elf.SHF_GROUP == elf.SHF_ALLOC and section.size \
                and _is_jump_tables(obj, section, cpu):
            section.name = JUMP_TABLES


def _is_jump_tables(obj: Elf, section: Section, cpu: ModuleType) -> bool:
    """Every word is the distance of code from the table; behind the last one there may be nothing."""
    relas = obj.relocations(section)
    places = {r.offset for r in relas if r.type in cpu.PC_RELATIVE and cpu.width(r.type) == _PC_RELATIVE_ENTRY
              and _is_code(obj, r.symbol)}
    return len(relas) == len(places) and places == set(range(0, section.size, _PC_RELATIVE_ENTRY))


def _is_code(obj: Elf, symbol: int) -> bool:
    home = obj.symbols[symbol].shndx
    return 0 < home < len(obj.sections) and bool(obj.sections[home].flags & elf.SHF_EXECINSTR)


def is_transient(out: Elf, kind: str, start: int, end: int, cpu: ModuleType) -> bool:
    """`out`: the linked payload, which occupies `start` … `end`; `kind`: of its image."""
    return kind != "exec" and not _has_state(out) and not _keeps_addresses(out, start, end, cpu) \
        and not _makes_addresses(out, start, end, cpu)


def _has_state(out: Elf) -> bool:
    """Whether it brings variables, or functions that were not there: these have slots."""
    return any(s.size for s in out.sections if s.name in (".data", ".bss")) or \
        any(s.name.endswith(names.SLOT_SUFFIX) and s.shndx != elf.SHN_UNDEF
            and out.sections[s.shndx].name == ".data.rel.ro" for s in out.symbols if s.shndx < len(out.sections))


def _keeps_addresses(out: Elf, start: int, end: int, cpu: ModuleType) -> bool:
    """Whether the agent would put an address of the payload into a word that is not part of the payload's own tables."""
    tables = next(s for s in out.sections if s.name == names.PAYLOAD_SECTION)
    for section in out.sections:
        if section.type != elf.SHT_RELA or not section.flags & elf.SHF_ALLOC:
            continue
        for place, info, addend in _RELA.iter_unpack(section.data):
            own = tables.addr <= place < tables.addr + tables.size
            if not own and info & 0xFFFFFFFF == cpu.R_RELATIVE and start <= addend < end:
                return True
    return False


def _makes_addresses(out: Elf, start: int, end: int, cpu: ModuleType) -> bool:
    """Whether some bytes of its code, decoded from wherever, are an instruction that makes an address of the payload."""
    harmless = [(s.addr, s.addr + s.size) for s in out.sections if s.name == _OUT_OF_REACH]
    for section in out.sections:
        if section.flags & elf.SHF_EXECINSTR:
            for offset in cpu.addresses_made(section.data):
                target = section.addr + offset
                if start <= target < end and not any(low <= target < high for low, high in harmless):
                    return True
    return False
