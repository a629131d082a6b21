"""Types as text: what C would write, and layouts line by line, from the DIEs of one object.

Nothing here holds an offset, a line or a directory, so that equal types are equal texts whatever else their objects hold.
"""
from __future__ import annotations

import hashlib
import re

from . import dwarf
from .dwarf import Abbrev, DebugInfoError, Unit

# DW_LANG_* (DWARF 5 table 7.17, dwarfstd.org/languages.html): C89, C, C99, C11, C17, C23. Symbols are plain names.
_C_LANGUAGES = frozenset({0x01, 0x02, 0x0C, 0x1D, 0x2C, 0x3E})
CLASSES = frozenset({dwarf.TAG_STRUCT, dwarf.TAG_CLASS})
KEYWORDS = {dwarf.TAG_STRUCT: "struct", dwarf.TAG_CLASS: "class", dwarf.TAG_UNION: "union", dwarf.TAG_ENUM: "enum"}
_QUALIFIERS = {dwarf.TAG_CONST: "const", dwarf.TAG_VOLATILE: "volatile", dwarf.TAG_RESTRICT: "restrict",
               dwarf.TAG_ATOMIC: "_Atomic"}
_POINTERS = {dwarf.TAG_POINTER: "*", dwarf.TAG_REFERENCE: "&", dwarf.TAG_RVALUE: "&&"}
_ANONYMOUS_NAMESPACE = "(anonymous namespace)"
MAX_DEPTH = 64          # of types within types; damage is deeper
_MAX_TEXT = 400          # characters of one printed piece; longer ones are cut and end in a digest
_MAX_MEMBERS = 4         # shown of an unnamed struct


class Names:
    """Printed names of type units."""

    def __init__(self, units: dict[int, Unit]) -> None:
        self._units = units
        self._names: dict[int, str] = {}
        self._depth = 0
        self.typedefs: dict[int, str] = {}       # signature of an unnamed type -> the name a typedef gives it
        self.bit_fields = False                  # a layout that was printed has some

    def enter(self) -> None:
        """Bounds recursion, over units too. Nobody leaves after an error: it ends the reading."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise DebugInfoError(f"types nest more than {MAX_DEPTH} deep")

    def leave(self) -> None:
        self._depth -= 1

    def name(self, signature: int) -> str:
        known = self._names.get(signature)
        if known is None:
            self.enter()
            known = self._names[signature] = self._find(signature)
            self.leave()
        return known

    def unit(self, signature: int) -> Unit:
        return self._units[signature]

    def find_unit(self, signature: int) -> Unit | None:
        return self._units.get(signature)

    def unnamed(self, signature: int) -> str | None:
        """The keyword of a type that has no name of its own, else None."""
        unit = self._units.get(signature)
        if unit is None:
            return None
        abbrev, at = unit.entry(unit.type_offset)
        return KEYWORDS.get(abbrev.tag) if dwarf.AT_NAME not in abbrev.names else None

    def _find(self, signature: int) -> str:
        unit = self._units.get(signature)
        if unit is None:
            return f"type {signature:016x}"      # its unit is not in this object: a split or stripped one
        abbrev, at = unit.entry(unit.type_offset)
        keyword = KEYWORDS.get(abbrev.tag, "type")
        name = unit.string(abbrev, at, dwarf.AT_NAME)
        if name is None:
            return self.typedefs.get(signature) or Printer(unit, self).content(unit.type_offset)
        target = unit.type_offset
        specified = unit.reference(abbrev, at, dwarf.AT_SPECIFICATION)
        if specified:
            target = specified[0]
        return " ".join((keyword, "::".join([*_scopes(unit, target), name])))


def _scopes(unit: Unit, target: int) -> list[str]:
    """The names of the DIEs around the one at `target`, from the outermost."""
    at = unit.after(*unit.root)
    scopes: list[str] = []
    while at < target:
        abbrev, attrs = unit.die(at)
        if abbrev is None:
            if not scopes:
                break
            scopes.pop()
            at = attrs
            continue
        after = unit.after(abbrev, attrs)
        sibling = unit.sibling(abbrev, after) if abbrev.children else after
        if sibling is None or sibling > target:
            scopes.append(unit.string(abbrev, attrs, dwarf.AT_NAME) or _ANONYMOUS_NAMESPACE)
            sibling = after
        at = sibling
    return scopes


# ---- printing -----------------------------------------------------------------------------------


_Parts = tuple[str, str]         # a type as C writes it, before and after the declared name
_POINTER_END = re.compile(r"[*&][\w ]*$")


def _joined(parts: _Parts) -> str:
    before, after = parts
    return f"{before} {after}" if after and after[0] in "([" and before[-1:] not in ("*", "&", "(") else before + after


def text_digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def cut(parts: _Parts) -> _Parts:
    """Bounds what is printed: types that name each other twice would double it at every step."""
    if len(parts[0]) + len(parts[1]) <= _MAX_TEXT:
        return parts
    return f"{parts[0][:_MAX_TEXT // 4]}...#{text_digest(parts[0] + chr(0) + parts[1])}", ""


class Printer:
    """Prints the types of one unit."""

    def __init__(self, unit: Unit, names: Names) -> None:
        self.unit = unit
        self.is_c = unit.constant(*unit.root, dwarf.AT_LANGUAGE) in _C_LANGUAGES
        self.described: set[int] = set()         # types of this unit whose layout `DebugTypes.units` tells
        self.typedefs: dict[int, str] = {}       # those of them that only a typedef names
        self.names = names
        self.resolved: dict[int, tuple[str | None, tuple[Abbrev, int]]] = {}     # of `_resolved`
        self._memo: dict[int, _Parts] = {}
        self._layouts: dict[int, str] = {}

    def text(self, offset: int) -> str:
        """The type whose DIE lies at `offset`."""
        return _joined(self._parts(offset))

    def variable(self, abbrev: Abbrev, at: int) -> str:
        """The type of a variable; with a digest of its layout where nothing else tells that."""
        text = _joined(self._type_of(abbrev, at))
        offset = self._embedded(abbrev, at)[0]
        return f"{text} #{self.layout(offset)}" if offset and offset not in self.described else text

    def signature(self, result: tuple[Abbrev, int], function: tuple[Abbrev, int]) -> str:
        before, after = self._type_of(*result)
        return _joined((before, self._parameters(*function) + after))

    def result(self, abbrev: Abbrev, at: int) -> str:
        """"int ()": a function of which only the type that it returns is told."""
        before, after = self._type_of(abbrev, at)
        return _joined((before, f"(){after}"))

    def members(self, target: tuple[int, int]) -> str:
        """The layout, as text, of the struct or class that a reference is to."""
        unit = self.names.find_unit(target[1]) if target[1] else self.unit
        if unit is None:
            return ""
        layouts = LayoutPrinter(unit, self.names)
        layouts.described = set() if target[1] else self.described
        return layouts.described_type(unit.type_offset if target[1] else target[0])[0]

    def pointed_to(self, abbrev: Abbrev, at: int) -> tuple[int, int] | None:
        """A reference to the class that a member function's first parameter points to."""
        for _ in range(6):                   # origin of the parameter, const, pointer, const
            target = self.unit.reference(abbrev, at, dwarf.AT_TYPE) or self.unit.reference(abbrev, at, dwarf.AT_ABSTRACT_ORIGIN)
            if target is None or target[1]:
                return target
            abbrev, at = self.unit.entry(target[0])
            if abbrev.tag in CLASSES:
                return self.unit.reference(abbrev, at, dwarf.AT_SIGNATURE) or target
        return None

    def content(self, offset: int) -> str:
        """An unnamed struct, union or enum: its first members."""
        abbrev, at = self.unit.entry(offset)
        shown: list[str] = []
        for _, child, attrs in self.unit.children(abbrev, at):
            if len(shown) == _MAX_MEMBERS:
                shown.append("...")
                break
            name = self.unit.string(child, attrs, dwarf.AT_NAME) or ""
            if child.tag == dwarf.TAG_MEMBER:
                before, after = self._type_of(child, attrs)
                shown.append(f"{before}{'' if before[-1:] in ('*', '&') else ' '}{name}{after}")
            elif child.tag == dwarf.TAG_ENUMERATOR:
                shown.append(name)
        separator = ", " if abbrev.tag == dwarf.TAG_ENUM else "; "
        return cut((f"{KEYWORDS.get(abbrev.tag, 'type')} {{{separator.join(shown)}}}", ""))[0]

    def layout(self, offset: int) -> str:
        """16 hex digits that change with the layout of the type at `offset`, and of those it holds by value."""
        known = self._layouts.get(offset)
        if known is None:
            self.names.enter()
            abbrev, at = self.unit.entry(offset)
            lines = [self.text(offset), str(self.unit.constant(abbrev, at, dwarf.AT_BYTE_SIZE))]
            for _, child, attrs in self.unit.children(abbrev, at):
                lines += self._layout_of_child(child, attrs)
            known = self._layouts[offset] = text_digest("\n".join(lines))
            self.names.leave()
        return known

    def _layout_of_child(self, child: Abbrev, at: int) -> list[str]:
        unit = self.unit
        name = unit.string(child, at, dwarf.AT_NAME) or ""
        if child.tag == dwarf.TAG_ENUMERATOR:
            return [f"{name}={unit.constant(child, at, dwarf.AT_CONST_VALUE)}"]
        if child.tag == dwarf.TAG_SUBPROGRAM and dwarf.AT_VIRTUALITY in child.names:
            return [f"virtual {name} {_joined(self._type_of(child, at))} {self._parameters(child, at)}"]
        if child.tag not in (dwarf.TAG_MEMBER, dwarf.TAG_INHERITANCE) or dwarf.AT_DECLARATION in child.names:
            return []
        places = (dwarf.AT_MEMBER_LOCATION, dwarf.AT_DATA_BIT_OFFSET, dwarf.AT_BIT_OFFSET, dwarf.AT_BIT_SIZE)
        where = " ".join(str(unit.constant(child, at, place)) for place in places)
        offset, signature = self._embedded(child, at)
        inner = self.layout(offset) if offset else f"{signature:016x}"
        return [f"{name}: {_joined(self._type_of(child, at))} at {where} {inner}"]

    def _embedded(self, abbrev: Abbrev, at: int) -> tuple[int, int]:
        """The struct, union or enum that an object of the DIE's type holds: (offset, 0), (0, signature) or (0, 0)."""
        for _ in range(MAX_DEPTH):
            target = self.unit.reference(abbrev, at, dwarf.AT_TYPE)
            if target is None or target[1]:
                return target or (0, 0)
            abbrev, at = self.unit.entry(target[0])
            if abbrev.tag in KEYWORDS:
                signature = self.unit.reference(abbrev, at, dwarf.AT_SIGNATURE)
                return signature or ((0, 0) if dwarf.AT_DECLARATION in abbrev.names else target)
            if abbrev.tag not in _TRANSPARENT:
                return 0, 0
        raise DebugInfoError(f"types nest more than {MAX_DEPTH} deep")

    # ---- parts ----------------------------------------------------------------------------------

    def _parts(self, offset: int) -> _Parts:
        known = self._memo.get(offset)
        if known is None:
            self.names.enter()
            abbrev, at = self.unit.entry(offset)
            known = self._memo[offset] = cut(self._make(offset, abbrev, at))
            self.names.leave()
        return known

    def _type_of(self, abbrev: Abbrev, at: int) -> _Parts:
        """The type that a DIE's DW_AT_type names; none is void (§5.2)."""
        target = self.unit.reference(abbrev, at, dwarf.AT_TYPE)
        if target is None:
            return "void", ""
        return (self.names.name(target[1]), "") if target[1] else self._parts(target[0])

    def _make(self, offset: int, abbrev: Abbrev, at: int) -> _Parts:
        tag = abbrev.tag
        if tag in _POINTERS:
            return _pointer(self._type_of(abbrev, at), _POINTERS[tag])
        if tag in _QUALIFIERS:
            return _qualified(self._type_of(abbrev, at), _QUALIFIERS[tag])
        if tag in KEYWORDS:
            return self._aggregate(offset, abbrev, at), ""
        if tag == dwarf.TAG_SUBROUTINE:
            before, after = self._type_of(abbrev, at)
            return before, self._parameters(abbrev, at) + after
        if tag == dwarf.TAG_ARRAY:
            return self._array(abbrev, at)
        name = self.unit.string(abbrev, at, dwarf.AT_NAME)
        if tag == dwarf.TAG_TYPEDEF:
            return f"{name}{{{self._behind_typedef(abbrev, at)}}}", ""
        if tag == dwarf.TAG_MEMBER_POINTER:
            owner = self.unit.reference(abbrev, at, dwarf.AT_CONTAINING_TYPE)
            scope = self.names.name(owner[1]) if owner and owner[1] else self.text(owner[0]) if owner else "?"
            return _pointer(self._type_of(abbrev, at), f"{scope.partition(' ')[2]}::*")
        return name or f"type of tag {tag:#x}", ""

    def _aggregate(self, offset: int, abbrev: Abbrev, at: int) -> str:
        signature = self.unit.reference(abbrev, at, dwarf.AT_SIGNATURE)
        if signature:
            return self.names.name(signature[1])
        name = self.unit.string(abbrev, at, dwarf.AT_NAME)
        return f"{KEYWORDS[abbrev.tag]} {name}" if name else self.content(offset)

    def _behind_typedef(self, abbrev: Abbrev, at: int) -> str:
        """What a typedef stands for; of an unnamed struct, union or enum the keyword alone."""
        target = self.unit.reference(abbrev, at, dwarf.AT_TYPE)
        if target is None:
            return "void"
        if target[0]:
            behind, attrs = self.unit.entry(target[0])
            signature = self.unit.reference(behind, attrs, dwarf.AT_SIGNATURE)
            if not signature:
                unnamed = behind.tag in KEYWORDS and dwarf.AT_NAME not in behind.names
                return KEYWORDS[behind.tag] if unnamed else self.text(target[0])
            target = signature
        return self.names.unnamed(target[1]) or self.names.name(target[1])

    def _array(self, abbrev: Abbrev, at: int) -> _Parts:
        bounds = ""
        for _, child, attrs in self.unit.children(abbrev, at):
            if child.tag in (dwarf.TAG_SUBRANGE, dwarf.TAG_ENUM):
                bounds += f"[{self._bound(child, attrs)}]"
                if len(bounds) > _MAX_TEXT:
                    raise DebugInfoError(f"unit at {self.unit.base:#x}: an array of too many dimensions")
        before, after = self._type_of(abbrev, at)
        return (f"{before} vector{bounds}", after) if dwarf.AT_GNU_VECTOR in abbrev.names else (before, bounds + after)

    def _bound(self, abbrev: Abbrev, at: int) -> str:
        count = self.unit.constant(abbrev, at, dwarf.AT_COUNT)
        if count is not None:
            return str(count)
        upper = self.unit.constant(abbrev, at, dwarf.AT_UPPER_BOUND)
        if upper is not None:
            return str(upper + 1)
        return "*" if {dwarf.AT_COUNT, dwarf.AT_UPPER_BOUND} & abbrev.names else ""

    def _parameters(self, abbrev: Abbrev, at: int) -> str:
        """"(int, ...)": the leading children of a function or function type; clang puts static locals before them."""
        shown: list[str] = []
        for _, child, attrs in self.unit.children(abbrev, at):
            if child.tag == dwarf.TAG_VARIABLE and not shown:
                continue
            if child.tag not in (dwarf.TAG_PARAMETER, dwarf.TAG_VARARGS):
                break
            shown.append(_joined(self._type_of(child, attrs)) if child.tag == dwarf.TAG_PARAMETER else "...")
        if not shown and (not self.is_c or dwarf.AT_PROTOTYPED in abbrev.names):
            return "(void)"
        return cut((f"({', '.join(shown)})", ""))[0] if shown else "()"


class LayoutPrinter(Printer):
    """Prints layouts. A typedef is printed as what it stands for, so that another name for the same thing is no change;
    types without any name count by content."""

    def __init__(self, unit: Unit, names: Names) -> None:
        super().__init__(unit, names)
        self.given: list[tuple[int, str]] = []       # signatures of unnamed types, and the typedefs they are known by here
        self._held: dict[tuple[int, int] | None, _Parts] = {}      # of members, by what their DW_AT_type refers to

    def described_type(self, offset: int) -> tuple[str, str]:
        """(layout, virtual functions) of the struct, union or enum whose DIE lies at `offset`."""
        unit = self.unit
        abbrev, at = unit.entry(offset)
        lines, virtuals = [self._header(abbrev, at)], []
        for _, child, attrs in unit.children(abbrev, at, all=False):
            if child.tag == dwarf.TAG_MEMBER:
                lines.append(self._member(child, attrs))
            elif child.tag == dwarf.TAG_ENUMERATOR:
                lines.append(f"{unit.string(child, attrs, dwarf.AT_NAME)} = {unit.constant(child, attrs, dwarf.AT_CONST_VALUE)}")
            elif child.tag == dwarf.TAG_SUBPROGRAM:
                virtuals.append(self._virtual(child, attrs))
            else:
                place = unit.constant(child, attrs, dwarf.AT_MEMBER_LOCATION)      # of a virtual base: an expression
                lines.append(f"{'virtual' if place is None else place} base {_joined(self._type_of(child, attrs))}")
        return "\n".join(lines), "\n".join(f"{slot} {function}" for slot, function in sorted(virtuals))

    def _header(self, abbrev: Abbrev, at: int) -> str:
        text = f"{KEYWORDS.get(abbrev.tag, 'type')} {self.unit.constant(abbrev, at, dwarf.AT_BYTE_SIZE)}"
        if abbrev.tag == dwarf.TAG_CLASS:
            text = f"struct{text[5:]}"       # nothing but the default access is different
        if dwarf.AT_ALIGNMENT in abbrev.names:
            text += f" align {self.unit.constant(abbrev, at, dwarf.AT_ALIGNMENT)}"
        if self.unit.constant(abbrev, at, dwarf.AT_CALLING_CONVENTION) == dwarf.CC_PASS_BY_REFERENCE:
            text += " by reference"
        if abbrev.tag == dwarf.TAG_ENUM and dwarf.AT_TYPE in abbrev.names:
            text += f" {_joined(self._type_of(abbrev, at))}"
        return text

    def _member(self, child: Abbrev, at: int) -> str:
        unit = self.unit
        place = str(unit.constant(child, at, dwarf.AT_MEMBER_LOCATION) or 0)
        if dwarf.AT_BIT_SIZE in child.names:
            place = self._bits(child, at)
        name = unit.string(child, at, dwarf.AT_NAME) or ""
        if name.startswith(_RESERVE):
            name = _RESERVE
        target = unit.reference(child, at, dwarf.AT_TYPE)
        known = self._held.get(target)
        if known is None:
            before, after = self._type_of(child, at)
            gap = "" if before[-1:] in ("*", "&", "(") else " "
            known = self._held[target] = f"{before}{gap}", f"{after}{self._nameless(child, at)}"
        return f"{place} {known[0]}{name}{known[1]}"

    def _bits(self, child: Abbrev, at: int) -> str:
        """"BYTE.BIT:WIDTH", with bits counted from the least significant one; §5.7.6, and DWARF 3 §5.5.6 for
        DW_AT_bit_offset, which counts from the most significant one of the storage unit."""
        unit = self.unit
        self.names.bit_fields = True
        width = unit.constant(child, at, dwarf.AT_BIT_SIZE) or 0
        first = 8 * (unit.constant(child, at, dwarf.AT_MEMBER_LOCATION) or 0)
        from_top = unit.constant(child, at, dwarf.AT_BIT_OFFSET)
        if from_top is None:
            first += unit.constant(child, at, dwarf.AT_DATA_BIT_OFFSET) or 0
        else:
            first += 8 * (unit.constant(child, at, dwarf.AT_BYTE_SIZE) or 0) - from_top - width
        return f"{first // 8}.{first % 8}:{width}"

    def _virtual(self, child: Abbrev, at: int) -> tuple[int, str]:
        unit = self.unit
        slot = -1
        found = unit.find(child, at, dwarf.AT_VTABLE_ELEMENT)
        if found is not None and found.form in (dwarf.FORM_EXPRLOC, 0x0A):
            length, body = dwarf.uleb(unit.data, found.at)
            if length > 1 and unit.data[body] == dwarf.OP_CONSTU:
                slot = dwarf.uleb(unit.data, body + 1)[0]
        function = unit.string(child, at, dwarf.AT_LINKAGE_NAME)
        return slot, function or f"{unit.string(child, at, dwarf.AT_NAME)}{self._parameters(child, at)}"

    def _nameless(self, child: Abbrev, at: int) -> str:
        """A digest of the layout of what a member holds, if nothing else tells that layout under a name."""
        unit, typedef = self.unit, None
        for _ in range(MAX_DEPTH):
            target = unit.reference(child, at, dwarf.AT_TYPE)
            if target is None:
                return ""
            if target[1]:
                return self._nameless_unit(target[1], typedef)
            child, at = unit.entry(target[0])
            if child.tag in KEYWORDS:
                signature = unit.reference(child, at, dwarf.AT_SIGNATURE)
                if signature:
                    return self._nameless_unit(signature[1], typedef)
                named = typedef or dwarf.AT_NAME in child.names
                told = dwarf.AT_DECLARATION in child.names or named and target[0] in self.described
                return "" if told else f" #{self.layout(target[0])}"
            if child.tag not in _TRANSPARENT:
                return ""
            typedef = unit.string(child, at, dwarf.AT_NAME) if child.tag == dwarf.TAG_TYPEDEF else None
        raise DebugInfoError(f"types nest more than {MAX_DEPTH} deep")

    def _nameless_unit(self, signature: int, typedef: str | None) -> str:
        if self.names.unnamed(signature) is None:
            return ""
        if typedef:
            self.given.append((signature, typedef))
            return ""
        self.names.enter()
        unit = self.names.unit(signature)
        inner = LayoutPrinter(unit, self.names)
        inner.given = self.given
        layout, _ = inner.described_type(unit.type_offset)
        self.names.leave()
        return f" #{text_digest(layout)}"

    def layout(self, offset: int) -> str:
        known = self._layouts.get(offset)
        if known is None:
            self.names.enter()
            known = self._layouts[offset] = text_digest(self.described_type(offset)[0])
            self.names.leave()
        return known

    def _make(self, offset: int, abbrev: Abbrev, at: int) -> _Parts:
        if abbrev.tag != dwarf.TAG_TYPEDEF:
            return super()._make(offset, abbrev, at)
        if self._behind_typedef(abbrev, at) in _NAMELESS:
            return self.unit.string(abbrev, at, dwarf.AT_NAME) or "", ""
        return self._type_of(abbrev, at)


_NAMELESS = frozenset(KEYWORDS.values())
_RESERVE = "hotreload_reserve"       # HOTRELOAD_RESERVE puts the number of its line behind it, which says nothing
_TRANSPARENT = frozenset({dwarf.TAG_TYPEDEF, dwarf.TAG_ARRAY, *_QUALIFIERS})


def _pointer(target: _Parts, mark: str) -> _Parts:
    before, after = target
    if after[:1] in ("(", "["):
        return f"{before}{_gap(before)}({mark}", f"){after}"
    return f"{before}{_gap(before)}{mark}", after


def _qualified(target: _Parts, word: str) -> _Parts:
    before, after = target
    if after[:1] == "[" and (before.startswith(f"{word} ") or before.endswith(word)):
        return target                        # compilers qualify both an array and its elements
    if _POINTER_END.search(before):
        return f"{before}{_gap(before)}{word}", after
    return f"{word} {before}", after


def _gap(before: str) -> str:
    return "" if before[-1:] in ("*", "&", "(") else " "
