"""Write DWARF 4 and 5 from data, so that unit tests need no compiler.

    from dwarfwriter import Die, Writer, address

    w = Writer(version=5)
    w.type_unit(0x1122334455667788, Die("structure_type", name="foo", byte_size=4))
    w.compile_unit(
        Die("base_type", key="int", name="int", byte_size=4),
        Die("variable", name="v", type="int", location=address(".data.v")),
        language=0x1D)
    sections = w.sections()                 # a hotreload_tool.dwarf.DebugSections

Tags and attributes have their names from the standard, without DW_TAG_ and DW_AT_. The form follows from the value:
str -> strp, int -> data4 (negative: sdata), bytes and `address` -> exprloc, True -> flag_present; for attributes that
refer to DIEs, str -> ref4 to the DIE with that `key`, int -> ref_sig8. Children are positional. Numbers come from
pyelftools.
"""
from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from elftools.dwarf.enums import ENUM_DW_AT, ENUM_DW_FORM, ENUM_DW_TAG

from hotreload_tool.dwarf import DebugSection, DebugSections

_REFERENCES = frozenset({"type", "specification", "abstract_origin", "signature", "containing_type"})


@dataclass(frozen=True)
class Address:
    """A location expression with an 8-byte field that takes a relocation against `target`."""
    target: str
    addend: int
    head: bytes
    tail: bytes


def address(target: str, addend: int = 0, tls: bool = False) -> Address:
    """Where a variable lies: DW_OP_addr, or DW_OP_const8u and DW_OP_GNU_push_tls_address."""
    return Address(target, addend, b"\x0e", b"\xe0") if tls else Address(target, addend, b"\x03", b"")


Value = str | int | bytes | Address


class Die:
    def __init__(self, tag: str, *children: Die, key: str = "", sibling: bool = True, **attrs: Any) -> None:
        self.tag, self.children, self.key, self.sibling = tag, children, key, sibling
        self.attrs: dict[str, Value] = attrs


@dataclass
class _Unit:
    """A unit while it is written: bytes, relocations, keys of DIEs and the references to fill in."""
    data: bytearray = field(default_factory=bytearray)
    relocations: dict[int, tuple[str, int]] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[int, str]] = field(default_factory=list)


class Writer:
    """One object's debug sections. `forms` overrides the form of attributes by name, e.g. {"name": "string"}."""

    def __init__(self, version: int = 5, forms: Mapping[str, str] | None = None) -> None:
        self.version, self.forms = version, dict(forms or {})
        self._abbrevs: dict[tuple[object, ...], int] = {}
        self._abbrev_data = bytearray()
        self._strings = bytearray(b"\0")
        self._indexes: list[int] = []
        self.info: list[DebugSection] = []
        self.types: list[DebugSection] = []

    def compile_unit(self, *children: Die, **attrs: Any) -> None:
        self.info.append(self._unit(self._header(1), Die("compile_unit", *children, **attrs)))

    def type_unit(self, signature: int, *children: Die, type_key: str = "", **attrs: Any) -> None:
        """The type is the DIE with `type_key`, by default the first child."""
        if not type_key:
            type_key = children[0].key = children[0].key or "the type"
        header = self._header(2) + struct.pack("<Q", signature)
        homes = self.info if self.version >= 5 else self.types
        homes.append(self._unit(header, Die("type_unit", *children, **attrs), type_key))

    def sections(self) -> DebugSections:
        offsets = b"".join(struct.pack("<I", o) for o in self._indexes)
        table = DebugSection(struct.pack("<IHH", len(offsets) + 4, 5, 0) + offsets)
        return DebugSections(abbrev=bytes(self._abbrev_data) + b"\0", str=bytes(self._strings), str_offsets=table,
                             info=self.info, types=self.types)

    # ---- the bytes ------------------------------------------------------------------------------

    def _header(self, unit_type: int) -> bytes:
        """What follows the length of a unit (section 7.5.1)."""
        if self.version >= 5:
            return struct.pack("<HBBI", self.version, unit_type, 8, 0)
        return struct.pack("<HIB", self.version, 0, 8)

    def _unit(self, header: bytes, root: Die, type_key: str = "") -> DebugSection:
        unit = _Unit(bytearray(4) + header + (bytes(4) if type_key else b""))
        self._die(unit, root)
        for at, key in unit.pending:
            struct.pack_into("<I", unit.data, at, unit.keys[key])
        if type_key:
            struct.pack_into("<I", unit.data, 4 + len(header), unit.keys[type_key])
        struct.pack_into("<I", unit.data, 0, len(unit.data) - 4)
        return DebugSection(bytes(unit.data), unit.relocations)

    def _die(self, unit: _Unit, die: Die) -> None:
        if die.key:
            unit.keys[die.key] = len(unit.data)
        sibling = die.sibling and bool(die.children)
        values = [(name, *self._form(name, value)) for name, value in die.attrs.items()]
        unit.data += _uleb(self._abbrev(die, [(name, form) for name, form, _ in values], sibling))
        for _, form, value in values:
            self._value(unit, form, value)
        place = len(unit.data)
        unit.data += bytes(4) if sibling else b""
        for child in die.children:
            self._die(unit, child)
        unit.data += b"\0" if die.children else b""
        if sibling:
            struct.pack_into("<I", unit.data, place, len(unit.data))

    def _form(self, name: str, value: Value) -> tuple[str, Value]:
        if name in self.forms:
            return self.forms[name], value
        if name in _REFERENCES:
            return ("ref4" if isinstance(value, str) else "ref_sig8"), value
        if value is True:
            return "flag_present", value
        if isinstance(value, str):
            return "strp", value
        if isinstance(value, bytes | Address):
            return "exprloc", value
        return ("data4" if value >= 0 else "sdata"), value

    def _abbrev(self, die: Die, attrs: list[tuple[str, str]], sibling: bool) -> int:
        shape = (die.tag, bool(die.children), tuple(attrs), sibling)
        code = self._abbrevs.get(shape)
        if code is None:
            code = self._abbrevs[shape] = len(self._abbrevs) + 1
            self._abbrev_data += _uleb(code) + _uleb(ENUM_DW_TAG["DW_TAG_" + die.tag]) + bytes([bool(die.children)])
            for name, form in [*attrs, ("sibling", "ref4")] if sibling else attrs:
                self._abbrev_data += _uleb(ENUM_DW_AT["DW_AT_" + name]) + _uleb(ENUM_DW_FORM["DW_FORM_" + form])
            self._abbrev_data += b"\0\0"
        return code

    def _value(self, unit: _Unit, form: str, value: Value) -> None:
        if isinstance(value, str) and form != "ref4":
            unit.data += self._string(unit, form, value)
        elif isinstance(value, str):
            unit.pending.append((len(unit.data), value))
            unit.data += bytes(4)
        elif isinstance(value, bytes | Address):
            self._block(unit, value)
        elif form != "flag_present":
            unit.data += _integer(form, value)

    def _string(self, unit: _Unit, form: str, value: str) -> bytes:
        raw = value.encode() + b"\0"
        if form == "string":
            return raw
        offset = len(self._strings)
        self._strings += raw
        if form == "strp":
            unit.relocations[len(unit.data)] = (".debug_str", offset)
            return bytes(4)
        self._indexes.append(offset)
        return _integer({"strx1": "data1", "strx2": "data2", "strx": "udata"}[form], len(self._indexes) - 1)

    def _block(self, unit: _Unit, value: bytes | Address) -> None:
        if isinstance(value, Address):
            place = len(unit.data) + 1 + len(value.head)
            unit.relocations[place] = (value.target, value.addend)
            value = value.head + bytes(8) + value.tail
        unit.data += bytes([len(value)]) + value


def _integer(form: str, value: int) -> bytes:
    if form == "sdata":
        return bytes([value & 0x7F]) if -64 <= value < 64 else _long_sleb(value)
    if form == "udata":
        return _uleb(value)
    return value.to_bytes({"data1": 1, "data2": 2, "data4": 4, "data8": 8, "ref_sig8": 8, "addr": 8}[form], "little")


def _uleb(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _long_sleb(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14 & 0x7F])
