"""Variables that left an object although the source still has them, or that a bit may stand for.

A compiler that sees all uses of a static variable may replace one that nothing writes to by its initial value, or split a
struct into its members. The variable in the process has another value, or all of it, so such a patch would change what
the program computes. GCC and newer clang are told not to (compiler.py); of older clang the debug information of the new
object tells: the variable is declared there, but has no place of its own.
"""
from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from . import debuginfo, dwarf, elf
from .errors import Refusal
from .live import LiveState
from .objectmap import DataEntry, ObjectMap
from .plan import Plan

_WRITABLE = frozenset({"data", "bss", "tdata", "tbss"})
_NUMBERS = re.compile(r"(?:\.\d+)+$")                 # clang: "v.1" is a member of v, "f.n.2" another n of f
_LOCAL = re.compile(r"^_ZZ(?P<function>.*)E(?P<length>\d+)(?=[A-Za-z_])(?P<rest>\w+)$")    # Itanium C++ ABI, "local names"
_ADVICE = ("let a function that runs write to it, or declare it volatile or __attribute__((used)); if it is meant to be gone, "
           "give what bears its name now another one")
_UNKNOWN_ADVICE = "build with debug information (-g), which the tool adds by itself unless that was turned off"


def check(live: LiveState, plan: Plan, paths: Mapping[str, Path]) -> list[Refusal]:
    """What speaks against `plan`. `paths`: the object files by name. Raises elf.ElfError for a damaged one."""
    return [refusal for new in plan.brought if new.object in paths and new.object in live.maps
            for refusal in _check_object(live, plan, new, paths[new.object])]


def _check_object(live: LiveState, plan: Plan, new: ObjectMap, path: Path) -> list[Refusal]:
    if not any("clang" in compiler for compiler in new.compiler):
        return []
    return _left(live, plan, new, path) + _perhaps_a_bit(live, plan, new)


def _left(live: LiveState, plan: Plan, new: ObjectMap, path: Path) -> list[Refusal]:
    gone = _gone(live, plan, new)
    if gone and not new.typed:
        return [Refusal("variable-folded", new.object, d.name, "it is no longer in the object, and without debug information it "
                        "cannot be seen whether the source still has it: then its live value would be lost", _UNKNOWN_ADVICE)
                for d in gone]
    declared: frozenset[tuple[str, str]] = declarations(path) if gone else frozenset()
    return [Refusal("variable-folded", new.object, d.name, "the source has it, but nothing that runs writes to it any more, or "
                    "only to parts of it, so the compiler took its initial value for good; the running program's value would "
                    "be lost", _ADVICE) for d in gone if source_name(d.symbol) in declared]


def _perhaps_a_bit(live: LiveState, plan: Plan, new: ObjectMap) -> list[Refusal]:
    """clang keeps a static variable that is only ever set to one other value than its initial one in a bit, in a byte. Which
    value the bit means is in the code. Debug information tells (it is part of the printed type); without it any byte may be
    such a bit."""
    old = live.maps[new.object]
    if new.typed and old.typed:
        return []
    changed = {c.name for c in plan.changed if c.object == new.object}
    used = {name for f in new.functions if f.name in changed for name in f.refs}
    before = {d.name for d in old.data if d.size == 1}
    return [Refusal("variable-folded", new.object, d.name, "it is one byte, a changed function uses it, and without debug "
                    "information it cannot be seen whether the compiler keeps a larger variable in it, as a bit whose meaning "
                    "such functions decide", _UNKNOWN_ADVICE)
            for d in new.data if d.binding == "local" and d.kind in _WRITABLE and d.size == 1 and d.name in used & before]


def _gone(live: LiveState, plan: Plan, new: ObjectMap) -> list[DataEntry]:
    """Writable file-local variables that live in the process and that no variable of the new object continues."""
    kept: Collection[str] = {d.name for d in new.data} | {b.was for b in plan.bindings.values()}
    public = {d.symbol for d in new.data if d.binding != "local"} | set(new.imports)    # what the declaration may mean now
    return [d for d in live.maps[new.object].data if d.binding == "local" and d.kind in _WRITABLE and d.name not in kept
            and d.symbol not in public and d.name in live.data and live.data[d.name].retired is None]


def source_name(symbol: str) -> tuple[str, str]:
    """(function, name) of what clang calls `symbol`; "" for what is in no function. "f.n" in C and "_ZZ1fvE1n" in C++ are n
    of f, which is `_Z1fv`."""
    plain = _NUMBERS.sub("", symbol)
    local = _LOCAL.match(plain) if plain.startswith("_ZZ") else None
    if local is not None:
        return f"_Z{local['function']}", local["rest"][:int(local["length"])]
    function, _, name = plain.rpartition(".")
    return function, name


def declarations(path: Path) -> frozenset[tuple[str, str]]:
    """(function, name) of the variables that an object's debug information declares, by linkage name where there is one, but
    for those of which it says that they are in a register or on the stack."""
    obj = elf.read(path)
    sections = debuginfo.debug_sections(obj.sections, obj.symbols)
    found: set[tuple[str, str]] = set()
    tables: dict[int, dict[int, dwarf.Abbrev]] = {}
    for home in sections.info:
        at = 0
        while at < len(home.data):
            unit = dwarf.Unit(sections, home, at, False, tables)
            found.update(_variables(unit))
            at = unit.end
    return frozenset(found)


def _variables(unit: dwarf.Unit) -> Iterator[tuple[str, str]]:
    at, around = unit.first, [""]             # the function that each DIE on the path belongs to
    while at < unit.end:
        abbrev, attrs = unit.die(at)
        if abbrev is None:
            around.pop()
            at = attrs
            continue
        at = unit.after(abbrev, attrs)
        if abbrev.tag == dwarf.TAG_VARIABLE and _may_be_static(unit, abbrev, attrs):
            yield around[-1], _name(unit, abbrev, attrs, bool(around[-1]))
        if abbrev.children:
            around.append(_name(unit, abbrev, attrs) if abbrev.tag == dwarf.TAG_SUBPROGRAM else around[-1])


def _name(unit: dwarf.Unit, abbrev: dwarf.Abbrev, attrs: int, plain: bool = False) -> str:
    """The linkage name, or with `plain` the name; of a function also by way of its declaration."""
    attributes = (dwarf.AT_NAME,) if plain else (dwarf.AT_LINKAGE_NAME, dwarf.AT_NAME)
    for attribute in attributes:
        found = unit.string(abbrev, attrs, attribute)
        if found is not None:
            return found
    for attribute in (dwarf.AT_SPECIFICATION, dwarf.AT_ABSTRACT_ORIGIN):
        other = unit.reference(abbrev, attrs, attribute)
        if other is not None and other[0]:
            origin = unit.entry(other[0])
            if not origin[0].names & {dwarf.AT_SPECIFICATION, dwarf.AT_ABSTRACT_ORIGIN} or attribute == dwarf.AT_ABSTRACT_ORIGIN:
                return _name(unit, *origin, plain)
    return ""


def _may_be_static(unit: dwarf.Unit, abbrev: dwarf.Abbrev, attrs: int) -> bool:
    """Whether the location is none, or neither a list nor a register nor in the frame (DWARF 5 §7.7.1: DW_OP_reg0 to
    DW_OP_fbreg)."""
    found = unit.find(abbrev, attrs, dwarf.AT_LOCATION)
    if found is None:
        return dwarf.AT_DECLARATION not in abbrev.names
    if found.form != dwarf.FORM_EXPRLOC:
        return False
    size, at = dwarf.uleb(unit.data, found.at)
    return size > 0 and not 0x50 <= unit.data[at] <= 0x92
