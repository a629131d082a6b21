"""The part of DWARF that `debuginfo` needs, made for speed: units, abbreviations, attributes by offset.

DWARF 4 and 5 in their 32-bit format, of relocatable objects (fields that take a relocation are zero in the file).
Numbers are those of DWARF 5: tags §7.5.3 table 7.3, attributes §7.5.4 table 7.5, forms §7.5.6 table 7.6; DW_FORM_GNU_*
are extensions of GCC. Damage raises DebugInfoError, IndexError or struct.error; nothing reads before the start of a
section, and every loop moves forward.
"""
from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

UT_COMPILE, UT_TYPE, UT_PARTIAL = 1, 2, 3             # table 7.2

TAG_ARRAY, TAG_CLASS, TAG_ENUM, TAG_PARAMETER, TAG_MEMBER, TAG_POINTER = 0x01, 0x02, 0x04, 0x05, 0x0D, 0x0F
TAG_REFERENCE, TAG_STRUCT, TAG_SUBROUTINE, TAG_TYPEDEF, TAG_UNION, TAG_VARARGS = 0x10, 0x13, 0x15, 0x16, 0x17, 0x18
TAG_INHERITANCE, TAG_INLINED, TAG_MEMBER_POINTER, TAG_SUBRANGE, TAG_BASE, TAG_CONST = 0x1C, 0x1D, 0x1F, 0x21, 0x24, 0x26
TAG_ENUMERATOR, TAG_SUBPROGRAM, TAG_VARIABLE, TAG_VOLATILE, TAG_RESTRICT = 0x28, 0x2E, 0x34, 0x35, 0x37
TAG_NAMESPACE, TAG_RVALUE, TAG_ATOMIC, TAG_CALL_SITE, TAG_GNU_CALL_SITE = 0x39, 0x42, 0x47, 0x48, 0x4109

AT_SIBLING, AT_LOCATION, AT_NAME, AT_BYTE_SIZE, AT_BIT_OFFSET, AT_BIT_SIZE = 0x01, 0x02, 0x03, 0x0B, 0x0C, 0x0D
AT_COMP_DIR = 0x1B
AT_LOW_PC, AT_LANGUAGE, AT_CONTAINING_TYPE, AT_CONST_VALUE, AT_PRODUCER, AT_PROTOTYPED, AT_UPPER_BOUND, AT_ABSTRACT_ORIGIN = (
    0x11, 0x13, 0x1D, 0x1C, 0x25, 0x27, 0x2F, 0x31)
AT_CALLING_CONVENTION, CC_PASS_BY_REFERENCE = 0x36, 0x04       # table 7.18 (new in DWARF 5)
AT_ARTIFICIAL, AT_COUNT, AT_MEMBER_LOCATION, AT_DECLARATION, AT_SPECIFICATION = 0x34, 0x37, 0x38, 0x3C, 0x47
AT_TYPE, AT_VIRTUALITY, AT_VTABLE_ELEMENT, AT_ALIGNMENT = 0x49, 0x4C, 0x4D, 0x88
AT_RANGES, AT_SIGNATURE, AT_DATA_BIT_OFFSET, AT_LINKAGE_NAME = 0x55, 0x69, 0x6B, 0x6E
AT_STR_OFFSETS_BASE, AT_ADDR_BASE = 0x72, 0x73
AT_GNU_VECTOR = 0x2107

FORM_ADDR, FORM_STRING, FORM_STRP, FORM_EXPRLOC, FORM_LINE_STRP = 0x01, 0x08, 0x0E, 0x18, 0x1F
FORM_REF_SIG8, FORM_IMPLICIT_CONST = 0x20, 0x21
OP_ADDR, OP_CONSTU, OP_ADDRX = 0x03, 0x10, 0xA1

# Bytes of a form, where that is a number of its own (8-byte addresses, 4-byte offsets).
_FIXED = {0x01: 8, 0x05: 2, 0x06: 4, 0x07: 8, 0x0B: 1, 0x0C: 1, 0x0E: 4, 0x10: 4, 0x11: 1, 0x12: 2, 0x13: 4, 0x14: 8,
          0x17: 4, 0x19: 0, 0x1C: 4, 0x1D: 4, 0x1E: 16, 0x1F: 4, 0x20: 8, 0x21: 0, 0x24: 8, 0x25: 1, 0x26: 2, 0x27: 3,
          0x28: 4, 0x29: 1, 0x2A: 2, 0x2B: 3, 0x2C: 4, 0x1F20: 4, 0x1F21: 4}
_LEB = frozenset({0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23, 0x1F01, 0x1F02})
_BLOCKS = {0x0A: 1, 0x03: 2, 0x04: 4}                 # width of the length before the bytes
_KNOWN_FORMS = frozenset({*_FIXED, *_LEB, *_BLOCKS, FORM_STRING, FORM_EXPRLOC, 0x09})
_CONSTANTS = {0x05: "<H", 0x06: "<I", 0x07: "<Q", 0x0B: "<B"}
_STRX = {0x25: 1, 0x26: 2, 0x27: 3, 0x28: 4}
_ADDRX = {0x29: 1, 0x2A: 2, 0x2B: 3, 0x2C: 4}
_UNIT_REFS = {0x11: 1, 0x12: 2, 0x13: 4, 0x14: 8}
MAX_ABBREVS = 1 << 16

_IN_OBJECTS = frozenset({TAG_MEMBER, TAG_INHERITANCE, TAG_ENUMERATOR})

_U32 = struct.Struct("<I").unpack_from
_U64 = struct.Struct("<Q").unpack_from


class DebugInfoError(ValueError):
    """The bytes are not DWARF that we understand; the message says where and why."""


class Relocations(Protocol):
    """Where a section's fields point: offset -> (name of the symbol or section, addend). A dict will do."""

    def get(self, offset: int, /) -> tuple[str, int] | None: ...


class RelaTable:
    """Relocations straight from a SHT_RELA section, looked up without unpacking it.

    `rela` are its bytes, `name` gives a name to a symbol index. Assemblers sort by offset; what is not sorted is sorted
    here.
    """

    def __init__(self, rela: bytes, name: Callable[[int], str]) -> None:
        words = memoryview(rela)[:len(rela) // 24 * 24].cast("Q")
        self._offsets: Sequence[int] = words[::3]
        self._infos: Sequence[int] = words[1::3]
        self._addends: Sequence[int] = memoryview(rela)[:len(rela) // 24 * 24].cast("q")[2::3]
        self._name = name
        self._sorted = False

    def get(self, offset: int, /) -> tuple[str, int] | None:
        at = self._find(offset)
        return None if at < 0 else (self._name(self._infos[at] >> 32), self._addends[at])

    def addend(self, offset: int) -> int | None:
        at = self._find(offset)
        return None if at < 0 else self._addends[at]

    def _find(self, offset: int) -> int:
        if not self._sorted:
            self._sort()
        at = bisect_left(self._offsets, offset)
        return at if at < len(self._offsets) and self._offsets[at] == offset else -1

    def _sort(self) -> None:
        offsets = list(self._offsets)
        if any(map(int.__gt__, offsets, offsets[1:])):
            order = sorted(range(len(offsets)), key=offsets.__getitem__)
            self._infos = [self._infos[i] for i in order]
            self._addends = [self._addends[i] for i in order]
            offsets.sort()
        self._offsets = offsets
        self._sorted = True


@dataclass
class DebugSection:
    """Bytes of one section and the relocations that apply to it."""
    data: bytes = b""
    relocations: Relocations = field(default_factory=dict[int, tuple[str, int]])

    def offset(self, at: int) -> int:
        """A 4-byte offset into another section: the addend of its relocation, or the field itself."""
        rela = self.relocations
        if isinstance(rela, RelaTable):
            addend = rela.addend(at)
        else:
            found = rela.get(at)
            addend = None if found is None else found[1]
        return int(_U32(self.data, at)[0]) if addend is None else addend


@dataclass
class DebugSections:
    """The debug sections of one object; `info` has an entry for each `.debug_info`, `types` for each `.debug_types`."""
    abbrev: bytes = b""
    str: bytes = b""
    line_str: bytes = b""
    str_offsets: DebugSection = field(default_factory=DebugSection)
    addr: DebugSection = field(default_factory=DebugSection)
    info: list[DebugSection] = field(default_factory=list)
    types: list[DebugSection] = field(default_factory=list)


class Field(NamedTuple):
    """Where an attribute's value lies: form, offset in the section, value of DW_FORM_implicit_const."""
    form: int
    at: int
    const: int


class Abbrev:
    """One abbreviation with its plan: how to step over its attributes, and where those lie whose place is known."""
    __slots__ = ("attrs", "children", "fixed", "head", "in_layout", "names", "sibling_tail", "size", "steps", "tag", "variable")

    def __init__(self, tag: int, children: bool, attrs: Sequence[tuple[int, int, int]]) -> None:
        self.tag, self.children = tag, children
        self.attrs = attrs                                       # (attribute, form, implicit constant)
        self.names = frozenset(a for a, _, _ in attrs)
        # Whether such a child says something of the layout of its type: a part of each object, or a place in the table
        # of virtual functions. Static members are declarations.
        self.in_layout = (tag in _IN_OBJECTS and AT_DECLARATION not in self.names
                          or tag == TAG_SUBPROGRAM and AT_VTABLE_ELEMENT in self.names)
        self.fixed: dict[int, tuple[int, int, int]] = {}         # attribute -> (form, offset from the start, constant)
        self.steps: list[tuple[int, int]] = []                   # (form of unknown size, fixed bytes after it)
        self.variable: Sequence[tuple[int, int, int]] = ()       # `attrs` from the first of unknown size on
        self.sibling_tail = self._sibling_tail()                 # bytes from DW_AT_sibling to the end of the attributes
        self.head = self._plan()                                 # fixed bytes before `steps`
        self.size = self.head if not self.steps else -1          # of all attributes, -1 where that differs by DIE

    def _plan(self) -> int:
        head = 0
        for number, (attr, form, const) in enumerate(self.attrs):
            size = _FIXED.get(form, -1)
            if size < 0 and not self.steps:
                self.variable = self.attrs[number:]
            if not self.steps:
                self.fixed.setdefault(attr, (form, head, const))
            if size < 0:
                self.steps.append((form, 0))
            elif self.steps:
                self.steps[-1] = (self.steps[-1][0], self.steps[-1][1] + size)
            else:
                head += size
        return head

    def _sibling_tail(self) -> int:
        tail = 0
        for attr, form, _ in reversed(self.attrs):
            size = _FIXED.get(form, -1)
            tail += size
            if size < 0:
                return 0
            if attr == AT_SIBLING and form == 0x13:              # ref4: what 32-bit DWARF has
                return tail
        return 0


def parse_abbrevs(data: bytes, at: int) -> dict[int, Abbrev]:
    """The abbreviation table at offset `at` of `.debug_abbrev`, by code (§7.5.3)."""
    table: dict[int, Abbrev] = {}
    while True:
        code, at = uleb(data, at)
        if code == 0:
            return table
        if len(table) >= MAX_ABBREVS:
            raise DebugInfoError(f".debug_abbrev, byte {at:#x}: more than {MAX_ABBREVS} abbreviations")
        tag, at = uleb(data, at)
        children = data[at]
        at += 1
        attrs = []
        while True:
            attr, form = data[at], data[at + 1]
            if attr < 0x80 and form < 0x80:
                at += 2
            else:
                attr, at = uleb(data, at)
                form, at = uleb(data, at)
            if not form:
                break
            const = 0
            if form == FORM_IMPLICIT_CONST:
                const, at = sleb(data, at)
            elif form not in _KNOWN_FORMS:
                raise DebugInfoError(f".debug_abbrev, byte {at:#x}: unsupported form {form:#x}")
            attrs.append((attr, form, const))
        table.setdefault(code, Abbrev(tag, children != 0, attrs))


def uleb(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 (§7.6) and the offset after it."""
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise DebugInfoError(f"a LEB128 before byte {at:#x} has more than 64 bits")


def sleb(data: bytes, at: int) -> tuple[int, int]:
    """A signed LEB128 and the offset after it."""
    value, end = uleb(data, at)
    bits = 7 * (end - at)
    return (value - (1 << bits) if value >> (bits - 1) else value), end


class Unit:
    """One unit of `.debug_info` or `.debug_types`. Offsets of DIEs are offsets in its section."""
    __slots__ = ("abbrevs", "addr_base", "base", "data", "end", "first", "home", "root", "sections", "signature", "str_base",
                 "type_offset", "unit_type")

    def __init__(self, sections: DebugSections, home: DebugSection, base: int, types: bool,
                 tables: dict[int, dict[int, Abbrev]]) -> None:
        """Reads the header at `base` (§7.5.1). `tables` keeps abbreviation tables by offset, for units to share."""
        data = home.data
        length, version = struct.unpack_from("<IH", data, base)
        if length >= 0xFFFFFFF0:
            raise DebugInfoError(f"unit at {base:#x}: 64-bit DWARF is not supported")
        if base + 4 + length > len(data):
            raise DebugInfoError(f"unit at {base:#x}: runs over the end of its section")
        if version not in (4, 5):
            raise DebugInfoError(f"unit at {base:#x}: DWARF version {version}; supported are 4 and 5")
        self.sections, self.home, self.data, self.base, self.end = sections, home, data, base, base + 4 + length
        if version == 5:
            self.unit_type, address_size, abbrevs_at, at = data[base + 6], data[base + 7], base + 8, base + 12
        else:
            self.unit_type = UT_TYPE if types else UT_COMPILE
            address_size, abbrevs_at, at = data[base + 10], base + 6, base + 11
        if address_size != 8:
            raise DebugInfoError(f"unit at {base:#x}: addresses are not 8 bytes wide")
        if self.unit_type not in (UT_TYPE, UT_COMPILE, UT_PARTIAL):
            raise DebugInfoError(f"unit at {base:#x}: split DWARF (unit type {self.unit_type}) is not supported")
        self.signature = self.type_offset = 0
        if self.unit_type == UT_TYPE:
            self.signature, self.type_offset = _U64(data, at)[0], base + _U32(data, at + 8)[0]
            at += 12
        self.first = at
        self.abbrevs = self._abbrevs(home.offset(abbrevs_at), tables)
        self.root = self.entry(at)
        self.str_base = self._table_base(AT_STR_OFFSETS_BASE)
        self.addr_base = self._table_base(AT_ADDR_BASE)

    def _table_base(self, attr: int) -> int:
        """Where the unit's entries begin. §7.26, §7.27: behind a header of 8 bytes, if the attribute does not tell."""
        found = self.find(*self.root, attr)
        return self.home.offset(found.at) if found else 8

    def _abbrevs(self, offset: int, tables: dict[int, dict[int, Abbrev]]) -> dict[int, Abbrev]:
        table = tables.get(offset)
        if table is None:
            if not 0 <= offset < len(self.sections.abbrev):
                raise DebugInfoError(f"unit at {self.base:#x}: its abbreviations lie outside .debug_abbrev")
            table = tables[offset] = parse_abbrevs(self.sections.abbrev, offset)
        return table

    # ---- DIEs -----------------------------------------------------------------------------------

    def die(self, at: int) -> tuple[Abbrev | None, int]:
        """The abbreviation of the DIE at offset `at` (None for the end of a list) and the offset of its attributes."""
        if not self.base < at < self.end:
            raise DebugInfoError(f"unit at {self.base:#x}: a DIE at {at:#x} lies outside")
        code, at = uleb(self.data, at)
        if code == 0:
            return None, at
        abbrev = self.abbrevs.get(code)
        if abbrev is None:
            raise DebugInfoError(f"unit at {self.base:#x}: no abbreviation {code}, before byte {at:#x}")
        return abbrev, at

    def entry(self, at: int) -> tuple[Abbrev, int]:
        """As `die`, where the end of a list is damage."""
        abbrev, attrs = self.die(at)
        if abbrev is None:
            raise DebugInfoError(f"unit at {self.base:#x}: no DIE at {at:#x}")
        return abbrev, attrs

    def after(self, abbrev: Abbrev, at: int) -> int:
        """The offset after the attributes that start at `at`."""
        if abbrev.size >= 0:
            return at + abbrev.size
        at += abbrev.head
        for form, tail in abbrev.steps:
            at = self._over(form, at) + tail
        return at

    def sibling(self, abbrev: Abbrev, after: int) -> int | None:
        """The offset of the DIE after this one and its children, where it is told; `after` ends its attributes."""
        if not abbrev.sibling_tail:
            return None
        target = self.base + int(_U32(self.data, after - abbrev.sibling_tail)[0])
        if not after <= target <= self.end:
            raise DebugInfoError(f"unit at {self.base:#x}: DW_AT_sibling before {after:#x} points to {target:#x}")
        return target

    def children(self, abbrev: Abbrev, at: int, all: bool = True) -> Iterator[tuple[int, Abbrev, int]]:
        """(offset, abbreviation, offset of the attributes) of each child of the DIE whose attributes start at `at`; with
        `all=False` only of those that are `in_layout`."""
        if not abbrev.children:
            return
        data, abbrevs, end = self.data, self.abbrevs, self.end
        at, depth = self.after(abbrev, at), 0
        while at < end:
            start = at
            code = data[at]
            at += 1
            if code == 0:
                if depth == 0:
                    return
                depth -= 1
                continue
            if code > 0x7F:
                code, at = uleb(data, start)
            child = abbrevs.get(code)
            if child is None:
                raise DebugInfoError(f"unit at {self.base:#x}: no abbreviation {code}, before byte {at:#x}")
            if depth == 0 and (all or child.in_layout):
                yield start, child, at
            at = at + child.size if child.size >= 0 else self.after(child, at)
            if child.children:
                sibling = self.sibling(child, at)
                depth, at = (depth + 1, at) if sibling is None else (depth, sibling)
        raise DebugInfoError(f"unit at {self.base:#x}: its DIEs run over its end")

    def _over(self, form: int, at: int) -> int:
        """The offset after a value of a form of unknown size."""
        data = self.data
        if form == FORM_STRING:
            end = data.find(b"\0", at)
            if end < 0:
                raise DebugInfoError(f"unit at {self.base:#x}: string at {at:#x} has no end")
            return end + 1
        if form in (FORM_EXPRLOC, 0x09):
            length, at = uleb(data, at)
            return at + length
        if form in _LEB:
            return uleb(data, at)[1]
        width = _BLOCKS[form]
        return at + width + int.from_bytes(data[at:at + width], "little")

    # ---- attributes -----------------------------------------------------------------------------

    def find(self, abbrev: Abbrev, at: int, attr: int) -> Field | None:
        """Where the DIE whose attributes start at `at` has `attr`."""
        found = self._place(abbrev, at, attr)
        return None if found is None else Field(*found)

    def _place(self, abbrev: Abbrev, at: int, attr: int) -> tuple[int, int, int] | None:
        fixed = abbrev.fixed.get(attr)
        if fixed is not None:
            return fixed[0], at + fixed[1], fixed[2]
        if attr not in abbrev.names:
            return None
        at += abbrev.head
        for name, form, const in abbrev.variable:
            if name == attr:
                return form, at, const
            size = _FIXED.get(form, -1)
            at = at + size if size >= 0 else self._over(form, at)
        return None

    def string(self, abbrev: Abbrev, at: int, attr: int) -> str | None:
        """A string attribute; None where there is none."""
        found = self._place(abbrev, at, attr)
        if found is None:
            return None
        form, place, _ = found
        if form == FORM_STRP:
            return _text(self.sections.str, self.home.offset(place))
        if form == FORM_STRING:
            return _text(self.data, place)
        if form == FORM_LINE_STRP:
            return _text(self.sections.line_str, self.home.offset(place))
        if form in _STRX:
            return self._indexed(int.from_bytes(self.data[place:place + _STRX[form]], "little"))
        if form == 0x1A:
            return self._indexed(uleb(self.data, place)[0])
        raise DebugInfoError(f"unit at {self.base:#x}: a string of form {form:#x} at {place:#x}")

    def _indexed(self, index: int) -> str:
        return _text(self.sections.str, self.sections.str_offsets.offset(self.str_base + 4 * index))

    def constant(self, abbrev: Abbrev, at: int, attr: int) -> int | None:
        """An integer attribute; None where there is none or it is not a constant (an expression, a reference)."""
        found = self._place(abbrev, at, attr)
        if found is None:
            return None
        form, place, const = found
        if form in _CONSTANTS:
            return int(struct.unpack_from(_CONSTANTS[form], self.data, place)[0])
        if form == FORM_IMPLICIT_CONST:
            return const
        if form == 0x0D:
            return sleb(self.data, place)[0]
        if form == 0x0F:
            return uleb(self.data, place)[0]
        if form == 0x1E:
            return int.from_bytes(self.data[place:place + 16], "little")
        return None

    def reference(self, abbrev: Abbrev, at: int, attr: int) -> tuple[int, int] | None:
        """A reference to a DIE: (its offset, 0), or (0, signature of its type unit); None where there is none."""
        found = self._place(abbrev, at, attr)
        if found is None:
            return None
        form, place, _ = found
        width = _UNIT_REFS.get(form)
        if width == 4:
            return self.base + int(_U32(self.data, place)[0]), 0
        if form == FORM_REF_SIG8:
            return 0, int(_U64(self.data, place)[0])
        if width is not None:
            return self.base + int.from_bytes(self.data[place:place + width], "little"), 0
        if form == 0x15:
            return self.base + uleb(self.data, place)[0], 0
        if form == 0x10:
            return self.home.offset(place), 0         # must lie in this unit: `entry` checks
        raise DebugInfoError(f"unit at {self.base:#x}: a reference of form {form:#x} at {place:#x}")

    def address(self, abbrev: Abbrev, at: int, attr: int) -> tuple[str, int] | None:
        """What an attribute that is an address refers to, as a relocation has it."""
        found = self._place(abbrev, at, attr)
        if found is None:
            return None
        form, place, _ = found
        if form == FORM_ADDR:
            return self.home.relocations.get(place)
        if form in _ADDRX:
            index = int.from_bytes(self.data[place:place + _ADDRX[form]], "little")
        elif form in (0x1B, 0x1F01):
            index = uleb(self.data, place)[0]
        else:
            return None
        return self.sections.addr.relocations.get(self.addr_base + 8 * index)


def _text(table: bytes, at: int) -> str:
    end = table.find(b"\0", at) if 0 <= at < len(table) else -1
    if end < 0:
        raise DebugInfoError(f"no string at byte {at:#x} of a table of {len(table)} bytes")
    return table[at:end].decode("utf-8", "surrogateescape")
