"""Where in the sources something is: the file and line at which a function, variable or type of an object is declared."""
from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.elffile import ELFFile

from .. import elf
from ..errors import Refusal
from ..names import LOCAL_SEPARATOR

_TAGS = frozenset({"DW_TAG_subprogram", "DW_TAG_variable", "DW_TAG_structure_type", "DW_TAG_class_type", "DW_TAG_union_type",
                   "DW_TAG_enumeration_type", "DW_TAG_typedef"})
_DAMAGE = (ELFError, DWARFError, KeyError, ValueError, IndexError, AttributeError, TypeError, OSError)


def locate(refusal: Refusal, path: Path | None, top: Path) -> tuple[str, int]:
    """(source relative to `top`, line) of what a refusal is about, as the debug information of object `path` says; line 0: the
    file as a whole. Without debug information the object's name stands for its source."""
    if path is None:
        return refusal.object or ".", 0
    try:
        return _search(_without_type_units(path), _plain(refusal.name), top) or (refusal.object, 0)
    except _DAMAGE:
        return refusal.object, 0


def _without_type_units(path: Path) -> Any:
    """The object with one `.debug_info`, that of its compilation: pyelftools takes sections by name, and type units have
    sections of the same name in groups of their own."""
    obj = elf.read(path)
    for section in obj.sections:
        if section.flags & elf.SHF_GROUP and "debug" in section.name:
            section.name = ".unused"
    return ELFFile(io.BytesIO(obj.to_bytes()))


def _plain(name: str) -> str:
    """A name as the source has it, for debug information to find."""
    bare = name.partition(LOCAL_SEPARATOR)[0].partition("#")[0]
    for keyword in ("struct ", "class ", "union ", "enum "):
        bare = bare.removeprefix(keyword)
    stem, dot, number = bare.rpartition(".")
    return stem if dot and number.isdecimal() else bare


def _search(file: Any, name: str, top: Path) -> tuple[str, int] | None:
    if not file.has_dwarf_info():
        return None
    dwarf = file.get_dwarf_info()
    first = None
    for unit in dwarf.iter_CUs():
        root = unit.get_top_DIE()
        first = first or (_relative(_text(root, "DW_AT_name"), _text(root, "DW_AT_comp_dir"), top), 0)
        for die in root.iter_children():
            if die.tag in _TAGS and name and name in (_text(die, "DW_AT_name"), _text(die, "DW_AT_linkage_name")):
                line = die.attributes.get("DW_AT_decl_line")
                if line is not None:
                    return _file(dwarf, unit, die, top) or first[0], int(line.value)
    return first


def _text(die: Any, attribute: str) -> str:
    found = die.attributes.get(attribute)
    return found.value.decode("utf-8", "surrogateescape") if found is not None and isinstance(found.value, bytes) else ""


def _file(dwarf: Any, unit: Any, die: Any, top: Path) -> str:
    """The file of a declaration, by the unit's table (DWARF 5 §6.2.4: numbered from 0 in version 5, from 1 before)."""
    number, program = die.attributes.get("DW_AT_decl_file"), dwarf.line_program_for_CU(unit)
    if number is None or program is None:
        return ""
    five = program.header.version >= 5
    entry = program.header.file_entry[number.value if five else number.value - 1]
    directories = [d.decode("utf-8", "surrogateescape") for d in program.header.include_directory]
    compiled_in = _text(unit.get_top_DIE(), "DW_AT_comp_dir")
    index = entry.dir_index if five else entry.dir_index - 1
    directory = directories[index] if 0 <= index < len(directories) else ""
    return _relative(os.path.join(directory, entry.name.decode("utf-8", "surrogateescape")), compiled_in, top)


def _relative(name: str, compiled_in: str, top: Path) -> str:
    whole = os.path.normpath(os.path.join(compiled_in, name))
    return os.path.relpath(whole, top) if whole.startswith(f"{top}{os.sep}") else whole
