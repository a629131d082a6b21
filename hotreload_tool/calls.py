"""Calls of other units' functions, straight through the slot instead of by way of a stub that jumps through it.

With `-fno-plt` a compiler of position-independent code calls what it does not see through a word that holds the address,
`call *f@GOTPCREL(%rip)`: room for any word. Whether `f` is instrumented is not known before the link, so the linker decides:
the caller brings a word of its own for `f`, weak, and the definition of `f` gives its slot the same name, strong. What is
called through a word that stays is as it was: `f` itself, in a library, or its stub.

Only code that can be nothing but a program's is changed: in a shared library another image may interpose `f`.
"""
from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping

from . import elf, names
from .elf import Elf, Rela, Section, Symbol
from .survey import Part, Survey, is_retargeted

_RESOLVER = "__tls_get_addr"       # linkers know the calls of it by their shape (psABI for AMD64, §4.4.6), and replace them
_PRODUCER = re.compile(rb"(?:^|\0)(GNU [A-Z][^\0]*)")
_MODEL = re.compile(rb" -f((?:no-)?(?:pic|PIC|pie|PIE))(?= |$)")


def through_slots(s: Survey, stubs: Mapping[Part, Symbol]) -> None:
    """Publish the slots of this object's functions, and lead its calls to those of others. After all references have their
    symbols; unwind and debug information do not see it, since no byte moves."""
    words = _publish(s, stubs)
    if not _is_of_a_program(s.elf):
        return
    for section in list(s.elf.sections):
        if not section.flags & elf.SHF_EXECINSTR or not is_retargeted(section):
            continue
        relas = s.elf.relocations(section)
        changed = [_through_slot(s, section, rela, words) for rela in relas]
        if changed != relas:
            s.elf.set_relocations(section, changed)


def _publish(s: Survey, stubs: Mapping[Part, Symbol]) -> dict[str, Symbol]:
    """Each slot's name for callers. Not of a weak function outside of a group: which of several definitions counts depends on
    the order of the link, and a caller's word could come before all of them."""
    slots = {x.name: x for x in s.elf.symbols if x.name.endswith(names.SLOT_SUFFIX)}
    words: dict[str, Symbol] = {}
    for part, stub in stubs.items():
        slot = slots.get(names.made_up(part.name or "", names.SLOT_SUFFIX))
        local = part.symbols[0].binding == elf.STB_LOCAL
        if slot is None or local or stub.binding == elf.STB_WEAK and part.comdat is None:
            continue
        name = names.made_up(stub.name, names.CALL_SUFFIX)
        words[name] = s.elf.add_symbol(Symbol(name, slot.shndx, slot.value, type=elf.STT_NOTYPE, binding=elf.STB_GLOBAL,
                                              other=elf.STV_HIDDEN))
    return words


def _through_slot(s: Survey, section: Section, rela: Rela, words: dict[str, Symbol]) -> Rela:
    symbol = s.elf.symbols[rela.symbol]
    if rela.type not in s.arch.GOT or rela.addend != -s.arch.PC_BIAS or not s.arch.goes_through_word(section.data, rela.offset):
        return rela
    if symbol.binding == elf.STB_LOCAL or symbol.type == elf.STT_GNU_IFUNC or symbol.name in ("", _RESOLVER):
        return rela
    name = names.made_up(symbol.name, names.CALL_SUFFIX)
    if name not in words:
        words[name] = _add_word(s, symbol, name)
    return rela._replace(type=s.arch.PC32, symbol=words[name].index)


def _add_word(s: Survey, symbol: Symbol, name: str) -> Symbol:
    """A weak word with the address of `symbol`, in a group of its own: of all callers' words the image keeps one."""
    group = s.elf.add_section(Section(".group", elf.SHT_GROUP, data=struct.pack("<I", elf.GRP_COMDAT), align=4, entsize=4,
                                      link=s.elf.symtab.index))
    flags = elf.SHF_ALLOC | elf.SHF_WRITE | elf.SHF_GROUP
    word = s.elf.add_section(Section(names.CALL_SECTION, elf.SHT_PROGBITS, flags, bytes(8), align=8))
    s.elf.join_group(group, word)
    made = s.elf.add_symbol(Symbol(name, word.index, type=elf.STT_NOTYPE, binding=elf.STB_WEAK, other=elf.STV_HIDDEN))
    group.info = made.index
    s.elf.set_relocations(word, [Rela(0, s.arch.ABSOLUTE_POINTER, symbol.index, 0)])
    return made


def _is_of_a_program(obj: Elf) -> bool:
    """Whether the compiler says that this code was not made for a shared library (DW_AT_producer of GCC has its options, those
    that count last). What does not say so is taken for one."""
    producers = list(_producers(obj.sections))
    models = [_MODEL.findall(producer) for producer in producers]
    return bool(producers) and not any(found and found[-1] in (b"pic", b"PIC") for found in models)


def _producers(sections: Iterable[Section]) -> Iterable[bytes]:
    for section in sections:
        if section.name in (".debug_str", ".debug_line_str") and not section.flags & elf.SHF_COMPRESSED:
            for match in _PRODUCER.finditer(section.data):
                if not match[1].startswith(b"GNU AS"):
                    yield match[1]
