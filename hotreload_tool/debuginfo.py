"""Types from an object's debug information, quickly: this runs at every compile.

What the object map needs and nothing more: layouts of types, signatures of functions, types of variables.
Only DIEs at file level are visited; function bodies are stepped over, except where one holds a static local, and in
objects that have local classes or lambdas.
"""
from __future__ import annotations

import re
import struct
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from . import dwarf
from .dwarf import Abbrev, DebugInfoError, DebugSection, DebugSections, RelaTable, Unit
from .typetext import CLASSES, KEYWORDS, MAX_DEPTH, LayoutPrinter, Names, Printer, cut, text_digest

__all__ = ["DebugInfoError", "DebugSection", "DebugSections", "DebugTypes", "RelaTable", "debug_sections", "read",
           "read_object"]

_SKIPPED_NAMESPACES = frozenset({"std", "__gnu_cxx"})

_MOST_KNOWN = 1 << 16    # layouts carried from one object to the next
_MAX_INFLATED = 1 << 30  # bytes of a compressed section

# DW_AT_location of a variable with an address: a block of 9 bytes, DW_OP_addr and a field that a relocation fills; of a
# thread-local one: 10 bytes, DW_OP_const8u, the field, DW_OP_form_tls_address or DW_OP_GNU_push_tls_address.
# clang gives DW_OP_addrx an index into .debug_addr instead. Of a variable that it keeps in one bit more follows, from
# DW_OP_deref_size on: how to compute the value.
_ADDRESS_BLOCK = re.compile(rb"\x09\x03\0{8}|\x0a\x0e\0{8}[\x9b\xe0]|\x02\xa1[\0-\x7f]|\x03\xa1[\x80-\xff][\0-\x7f]|"
                            rb"[\x0a-\x7f](?:\x03\0{8}|\x0e\0{8}[\x9b\xe0])\x94|[\3-\x7f]\xa1[\x80-\xff]?[\0-\x7f]\x94")
_LIBRARY = re.compile(r"\w+ (?:std|__gnu_cxx|__cxxabiv1)::")
_NO_VARIABLE = re.compile(r"^\.text|\.(str|cst)\d+(\.\d+)?$")   # sections of code and of literals


@dataclass
class DebugTypes:
    """What an object says about types.

    Printed types hold no offset, line or directory. A typedef is printed with what it stands for:
    `size_t{long unsigned int}`; struct, union and enum by name alone, for their layout is compared by `units`. The type
    of a variable whose layout is not told there (it is local to a function) is followed by a digest of it.
    """
    units: dict[str, str] = field(default_factory=dict)
    """Digest (16 hex digits) of a type's name and layout -> "struct foo", "class ns::Foo", or what a typedef calls it."""
    layouts: dict[str, str] = field(default_factory=dict)
    """The same digest -> the layout as text (`layouts.py`), except of types of the C++ library."""
    virtuals: dict[str, str] = field(default_factory=dict)
    """Name of a class -> its own virtual functions as text: lines "SLOT FUNCTION"."""
    signatures: dict[str, str] = field(default_factory=dict)
    """Symbol -> "int (int, struct foo *)", of functions whose symbol is their name: C and extern "C". Of other C++ functions
    "int ()", for their mangled name tells the parameters; of constructors and destructors none."""
    code: dict[tuple[str, int], str] = field(default_factory=dict)
    """(symbol or section, offset) -> the same, of C++ functions whose mangled name the compiler does not tell."""
    locals: list[LocalClass] = field(default_factory=list)
    """Lambdas that have captures, and classes within functions."""
    variables: dict[tuple[str, str | None], str] = field(default_factory=dict)
    """(linkage name or name, function it is local to) -> type. C++ gives some file-local ones a plain name."""
    places: dict[tuple[str, int], str] = field(default_factory=dict)
    """(symbol or section, offset), as the location's relocation has it -> type, of the same variables."""
    typed: bool = False
    """The object has debug information, and all of it was understood."""
    reason: str = ""
    """Why it is not typed."""

    def signature(self, symbol: str, section: str, offset: int) -> str | None:
        """What callers of a function, and objects that exist, take for granted: its signature, and the layouts of lambdas and
        local classes that its name mentions: "int (), with {struct 4; 0 int __base}".

        Compilers inline a lambda's call operator into what calls it, such as the invoker of a std::function: so this is told
        of every function whose name has the lambda in it. Which one of its function's lambdas that is takes a demangler to
        tell: all of them count."""
        text = self.signatures.get(symbol) or self.code.get((symbol, 0)) or self.code.get((section, offset))
        if not self.typed or not symbol.startswith("_Z") or _INVOKER.search(symbol):
            return text
        lambdas = _LAMBDA.search(symbol) is not None
        if not lambdas and not self.locals:
            return text
        identifiers = _identifiers(symbol)
        layouts = {local.layout for local in self.locals if local.within <= identifiers and (lambdas or not local.is_lambda)}
        if layouts:
            return f"{text or '()'}, with {{{cut(('}, {'.join(sorted(layouts)), ''))[0]}}}"
        return text or ("()" if lambdas else None)


class LocalClass(NamedTuple):
    within: frozenset[str]       # identifiers that all mangled names which mention it have: of its function, and its own
    is_lambda: bool
    layout: str


# Itanium C++ ABI §5.1.8: closure types are "Ul PARAMETERS E [NUMBER] _"; clang calls those that no other object sees $_NUMBER.
_LAMBDA = re.compile(r"Ul.*?E\d*_|\$_\d")
# The function that a lambda without captures converts to: it is given no closure. Of GCC, of clang.
_INVOKER = re.compile(r"4_FUNE|8__invokeE")
# What has digits that are no length of an identifier: substitutions, template parameters, discriminators, literals, arrays.
_MANGLED_PART = re.compile(r"S[0-9A-Z]*_|T[0-9]*_|E\d*_|L[a-z]n?\d+E|A\d+_|\d+|.", re.DOTALL)


def _identifiers(symbol: str) -> frozenset[str]:
    """The identifiers in a mangled name; those that a substitution repeats stand before it."""
    if not symbol.startswith("_Z"):
        return frozenset((symbol,))
    found, at = set(), 2
    while at < len(symbol):
        part = _MANGLED_PART.match(symbol, at)
        if part is None:
            break
        at = part.end()
        if part[0].isdecimal() and len(part[0]) < 5:
            found.add(symbol[at:at + int(part[0])])
            at += int(part[0])
    return frozenset(found)


class KnownLayout(NamedTuple):
    layout: str
    virtuals: str
    typedefs: list[tuple[int, str]]      # signatures of unnamed types, and the names it calls them by


Known = dict[int, KnownLayout]


def read(sections: DebugSections, known: Known | None = None) -> DebugTypes:
    """The types of one object. What is damaged or not supported gives `typed=False` and a reason; nothing is raised.

    `known` carries layouts from one object to the next, by the signatures of GCC's type units."""
    found = DebugTypes()
    try:
        _read(sections, found, known)
    except DebugInfoError as e:
        return DebugTypes(reason=f"debug information: {e}")
    except (IndexError, struct.error) as e:
        return DebugTypes(reason=f"debug information is truncated: {e}")
    return found


def read_object(sections: Sequence[Any], symbols: Sequence[Any]) -> DebugTypes:
    """`read` of `debug_sections`: raises nothing."""
    try:
        return read(debug_sections(sections, symbols))
    except DebugInfoError as e:
        return DebugTypes(reason=f"debug information: {e}")


def directories(sections: DebugSections) -> set[str]:
    """The directories that the compiler ran in (DW_AT_comp_dir), of an object or a linked file; of what is not understood
    none."""
    try:
        _, units = _units(sections)
        return {d for unit in units if (d := unit.string(*unit.root, dwarf.AT_COMP_DIR))}
    except (DebugInfoError, IndexError, struct.error):
        return set()


def debug_sections(sections: Sequence[Any], symbols: Sequence[Any]) -> DebugSections:
    """The debug sections among `sections` of a relocatable object.

    A section has `index name type flags info data`, a symbol `name type shndx`, as in `elf.py`. Raises DebugInfoError
    for a compressed section that can't be inflated.
    """
    rela_of = {s.info: s for s in sections if s.type == 4}

    def name(index: int) -> str:
        symbol = symbols[index]
        of_section = symbol.type == 3 and 0 < symbol.shndx < len(sections)
        return str(sections[symbol.shndx].name if of_section else symbol.name)

    def section(s: Any) -> DebugSection:
        rela = rela_of.get(s.index)
        return DebugSection(_inflated(s), RelaTable(rela.data, name) if rela else {})

    found = DebugSections()
    for s in sections:
        if not s.name.startswith(".debug_"):
            continue
        if s.name in (".debug_info", ".debug_types"):
            getattr(found, s.name[7:]).append(section(s))
        elif s.name in (".debug_str_offsets", ".debug_addr"):
            setattr(found, s.name[7:], section(s))
        elif s.name in (".debug_abbrev", ".debug_str", ".debug_line_str"):
            setattr(found, s.name[7:], _inflated(s))
    return found


def _inflated(section: Any) -> bytes:
    """A section's bytes; gABI chapter 4, "Section Compression", if it has SHF_COMPRESSED."""
    data: bytes = section.data
    if not section.flags & 0x800:
        return data
    if len(data) < 24 or int.from_bytes(data[:4], "little") != 1:
        raise DebugInfoError(f"{section.name}: compressed in a way other than zlib")
    size = int.from_bytes(data[8:16], "little")
    try:
        out = zlib.decompressobj().decompress(data[24:], min(size, _MAX_INFLATED) + 1)
    except zlib.error as e:
        raise DebugInfoError(f"{section.name}: {e}") from e
    if len(out) != size:
        raise DebugInfoError(f"{section.name}: does not inflate to the {size} bytes it claims")
    return out


# ---- units --------------------------------------------------------------------------------------


def _read(sections: DebugSections, found: DebugTypes, known: Known | None) -> None:
    type_units, compile_units = _units(sections)
    if not compile_units:
        raise DebugInfoError("there is none")
    named = Names(type_units)
    scans = [_Scan(unit) for unit in compile_units]
    for scan in scans:
        for name, signature in scan.named_signatures():
            named.typedefs.setdefault(signature, name)
    for scan in scans:
        scan.collect(Printer(scan.unit, named), found)
    if known is None or not all(_made_by_gcc(unit) for unit in compile_units):
        known = {}
    printed = [(signature, _layout_of_unit(signature, unit, named, known)) for signature, unit in type_units.items()]
    for signature, texts in printed:
        _add_layout(found, named.name(signature), *texts)       # now that all typedefs are known
    found.typed = True


def _made_by_gcc(unit: Unit) -> bool:
    return (unit.string(*unit.root, dwarf.AT_PRODUCER) or "").startswith("GNU ")


def _layout_of_unit(signature: int, unit: Unit, named: Names, known: Known) -> tuple[str, str]:
    """GCC's signatures are digests of content (clang's are digests of names), but for the place of bit-fields."""
    kept = known.get(signature)
    if kept is None:
        printer = LayoutPrinter(unit, named)
        named.bit_fields = False
        kept = KnownLayout(*printer.described_type(unit.type_offset), printer.given)
        if not named.bit_fields:
            if len(known) >= _MOST_KNOWN:
                known.clear()
            known[signature] = kept
    for nameless, typedef in kept.typedefs:
        named.typedefs.setdefault(nameless, typedef)
    return kept.layout, kept.virtuals


def _add_layout(found: DebugTypes, name: str, layout: str, virtuals: str) -> None:
    key = text_digest(f"{name}\n{layout}")
    found.units[key] = name
    if not _LIBRARY.match(name):
        found.layouts[key] = layout
    if virtuals:
        known = found.virtuals.get(name)     # two anonymous namespaces can hold one name; then none of them may change
        found.virtuals[name] = virtuals if known in (None, virtuals) else f"{known}\n{virtuals}"


def _units(sections: DebugSections) -> tuple[dict[int, Unit], list[Unit]]:
    """Type units by signature, and compile units."""
    tables: dict[int, dict[int, Abbrev]] = {}
    type_units: dict[int, Unit] = {}
    compile_units: list[Unit] = []
    for homes, types in ((sections.info, False), (sections.types, True)):
        for home in homes:
            at = 0
            while at < len(home.data):
                unit = Unit(sections, home, at, types, tables)
                if unit.unit_type == dwarf.UT_TYPE:
                    type_units.setdefault(unit.signature, unit)
                else:
                    compile_units.append(unit)
                at = unit.end
    return type_units, compile_units


# ---- the walk over a compile unit ---------------------------------------------------------------


class _Die(NamedTuple):
    offset: int
    abbrev: Abbrev
    attrs: int           # offset of the attributes
    after: int           # offset after them


_TYPES = frozenset(KEYWORDS)
_CODE = frozenset({dwarf.AT_LOW_PC, dwarf.AT_RANGES})
_FUNCTION, _VARIABLE, _NAMESPACE, _TYPEDEF, _LAYOUT = 1, 2, 3, 4, 5


def _action(abbrev: Abbrev) -> int:
    """What a DIE with this abbreviation, at file level, is to us."""
    names = abbrev.names
    if abbrev.tag == dwarf.TAG_SUBPROGRAM:
        return _FUNCTION if abbrev.children or names & _CODE else 0
    if abbrev.tag == dwarf.TAG_VARIABLE:
        return _VARIABLE if dwarf.AT_LOCATION in names else 0
    if abbrev.tag == dwarf.TAG_NAMESPACE:
        return _NAMESPACE
    if abbrev.tag == dwarf.TAG_TYPEDEF:
        return _TYPEDEF
    if abbrev.tag in _TYPES and dwarf.AT_DECLARATION not in names and dwarf.AT_SIGNATURE not in names:
        return _LAYOUT
    return 0


class _Scan:
    """One pass over the file level of a compile unit: where its functions, variables and types are."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.found: dict[int, list[_Die]] = {_FUNCTION: [], _VARIABLE: [], _TYPEDEF: [], _LAYOUT: []}
        if unit.root[0].children:
            self._walk(unit.after(*unit.root))

    def _walk(self, at: int) -> None:
        unit, end, abbrevs, data = self.unit, self.unit.end, self.unit.abbrevs, self.unit.data
        actions = {code: _action(abbrev) for code, abbrev in abbrevs.items()}
        active = True                        # at file level or in a namespace
        outer: list[bool] = []               # `active` of the DIEs around
        while at < end:
            start = at
            code = data[at]
            at += 1
            if code == 0:
                if not outer:
                    return
                active = outer.pop()
                continue
            if code > 0x7F:
                code, at = dwarf.uleb(data, start)
            abbrev = abbrevs.get(code)
            if abbrev is None:
                raise DebugInfoError(f"no abbreviation {code}, at {start:#x}")
            after = at + abbrev.size if abbrev.size >= 0 else unit.after(abbrev, at)
            action = actions[code] if active else 0
            if action in self.found:
                self.found[action].append(_Die(start, abbrev, at, after))
            if not abbrev.children:
                at = after
                continue
            entered = action == _NAMESPACE and unit.string(abbrev, at, dwarf.AT_NAME) not in _SKIPPED_NAMESPACES
            sibling = None if entered else unit.sibling(abbrev, after)
            if sibling is None:
                outer.append(active)
                active, sibling = entered, after
            at = sibling
        raise DebugInfoError(f"unit at {unit.base:#x}: its DIEs run over its end")

    def named_signatures(self) -> Iterable[tuple[str, int]]:
        """(name, signature of its type unit) of every typedef of one."""
        for _, abbrev, at, _ in self.found[_TYPEDEF]:
            target = self.unit.reference(abbrev, at, dwarf.AT_TYPE)
            name = self.unit.string(abbrev, at, dwarf.AT_NAME) if target and target[1] else None
            if target and name:
                yield name, target[1]

    def collect(self, printer: Printer, found: DebugTypes) -> None:
        printer.described = {die.offset for die in self.found[_LAYOUT]}
        self._layouts(printer, found)
        for die in self.found[_VARIABLE]:
            _add_variable(printer, die.abbrev, die.attrs, None, found)
        addresses = self._addresses()
        abbrevs = () if printer.is_c else self.unit.abbrevs.values()
        local = any(map(_may_be_local, abbrevs))
        unnamed = not _made_by_gcc(self.unit) and any(map(_may_be_lambda, abbrevs))
        for die in self.found[_FUNCTION]:
            if die.abbrev.names & _CODE:
                _add_signature(printer, die, found)
            if addresses and die.abbrev.children:
                self._static_locals(printer, die, addresses, found)
            if local and die.abbrev.children and not _of_library(printer, die):
                self._local_classes(printer, die, found)
            if unnamed and _MANGLED & die.abbrev.names:
                _add_lambda_of(printer, die, found)

    def _layouts(self, printer: Printer, found: DebugTypes) -> None:
        """Types that the compiler put into no type unit."""
        if not self.found[_LAYOUT]:
            return
        for _, abbrev, at, _ in self.found[_TYPEDEF]:
            target = self.unit.reference(abbrev, at, dwarf.AT_TYPE)
            if target and target[0]:
                printer.typedefs.setdefault(target[0], self.unit.string(abbrev, at, dwarf.AT_NAME) or "")
        layouts = LayoutPrinter(self.unit, printer.names)
        layouts.described = printer.described
        for die in self.found[_LAYOUT]:
            name = printer.typedefs.get(die.offset) or printer.text(die.offset)
            _add_layout(found, name, *layouts.described_type(die.offset))

    def _addresses(self) -> list[int]:
        """Offsets, ascending, of fields that hold the address of what may be a variable."""
        unit, found = self.unit, []
        for match in _ADDRESS_BLOCK.finditer(unit.data, unit.first, unit.end):
            target = _target(unit, match.start() + 1)
            if target and not _NO_VARIABLE.search(target[0]):
                found.append(match.start() + 2)
        return found

    def _static_locals(self, printer: Printer, function: _Die, addresses: list[int], found: DebugTypes) -> None:
        unit = self.unit
        end = unit.sibling(function.abbrev, function.after) or unit.end
        if not _any_within(addresses, function.after, end):
            return
        name, _ = _resolved(printer, function.abbrev, function.attrs)
        at, own, outer = function.after, True, [True]      # `own`: not in another function; `outer`: that of the DIEs around
        while outer and at < end:
            abbrev, attrs = unit.die(at)
            if abbrev is None:
                own, at = outer.pop(), attrs
                continue
            at = after = unit.after(abbrev, attrs)
            if own and abbrev.tag == dwarf.TAG_VARIABLE and _any_within(addresses, attrs, after):
                _add_variable(printer, abbrev, attrs, name or "", found)     # clang may keep no name of one inlined everywhere
            if abbrev.children:
                sibling = unit.sibling(abbrev, after)
                if sibling is None or abbrev.tag not in _OPAQUE and _any_within(addresses, after, sibling):
                    outer.append(own)
                    own = own and abbrev.tag not in _OPAQUE
                else:
                    at = sibling


    def _local_classes(self, printer: Printer, function: _Die, found: DebugTypes) -> None:
        """Lambdas and local classes are DIEs in the function's body, and their member functions may be in those.

        GCC repeats a class that something refers to within a declaration of its function."""
        unit, at = self.unit, function.after
        end = unit.sibling(function.abbrev, function.after) or unit.end
        depth, owner = 1, None
        while depth and at < end:
            start = at
            abbrev, attrs = unit.die(at)
            if abbrev is None:
                depth, at = depth - 1, attrs
                continue
            at = after = unit.after(abbrev, attrs)
            if abbrev.tag == dwarf.TAG_SUBPROGRAM and abbrev.names & _CODE:
                _add_result(printer, _Die(start, abbrev, attrs, after), found)
            elif _may_be_local(abbrev):
                owner = owner or self._identifiers_around(printer, function)
                _add_local_class(printer, _Die(start, abbrev, attrs, after), owner, found)
            if abbrev.children:
                sibling = unit.sibling(abbrev, after) if abbrev.tag in _WITHOUT_CLASSES else None
                depth, at = (depth + 1, after) if sibling is None else (depth, sibling)

    def _identifiers_around(self, printer: Printer, function: _Die) -> frozenset[str]:
        """Identifiers in the mangled name of a function; of a lambda's call operator, which may have none, those of the
        function that the lambda is in."""
        for _ in range(MAX_DEPTH):
            name, (holder, at) = _resolved(printer, function.abbrev, function.attrs)
            if name and (name.startswith("_Z") or not _MANGLED & function.abbrev.names):
                return _identifiers(name)
            place = _declared_at(self.unit, function)
            around = bisect_left(self.found[_FUNCTION], place, key=_offset) - 1
            if place == function.offset or around < 0:
                break
            function = self.found[_FUNCTION][around]
        return frozenset()


def _offset(die: _Die) -> int:
    return die.offset


def _declared_at(unit: Unit, function: _Die) -> int:
    """Where the declaration is that a function refers to."""
    place, abbrev, at = function.offset, function.abbrev, function.attrs
    for _ in range(4):                       # concrete -> abstract -> declaration
        origin = (unit.reference(abbrev, at, dwarf.AT_ABSTRACT_ORIGIN) or unit.reference(abbrev, at, dwarf.AT_SPECIFICATION))
        if not origin or not origin[0]:
            break
        place = origin[0]
        abbrev, at = unit.entry(place)
    return place


def _may_be_local(abbrev: Abbrev) -> bool:
    return abbrev.children and abbrev.tag in CLASSES and not abbrev.names & _TOLD_ELSEWHERE


def _add_local_class(printer: Printer, die: _Die, function: frozenset[str], found: DebugTypes) -> None:
    unit = printer.unit
    name = unit.string(die.abbrev, die.attrs, dwarf.AT_NAME)
    if name is None and not any(child.tag == dwarf.TAG_SUBPROGRAM and unit.string(child, at, dwarf.AT_NAME) == "operator()"
                                for _, child, at in unit.children(die.abbrev, die.attrs)):
        return                               # a struct without a name
    _add_local(found, function if name is None else function | {name}, name is None, printer.members((die.offset, 0)))


def _add_lambda_of(printer: Printer, die: _Die, found: DebugTypes) -> None:
    """clang has lambdas in inline functions at file level: what is known of those are the names of their call operators."""
    name, _ = _resolved(printer, die.abbrev, die.attrs)
    lambdas = [match.end() for match in _LAMBDA.finditer(name or "")]
    if not name or not lambdas or not name.startswith("cl", lambdas[-1]):
        return
    unit = printer.unit
    for _, child, at in unit.children(die.abbrev, die.attrs):
        if child.tag == dwarf.TAG_PARAMETER:
            closure = printer.pointed_to(child, at)
            if closure:
                _add_local(found, _identifiers(name[:lambdas[-1]]), True, printer.members(closure))
            return


def _add_local(found: DebugTypes, within: frozenset[str], is_lambda: bool, layout: str) -> None:
    local = LocalClass(within, is_lambda, layout.replace("\n", "; "))
    if "\n" in layout and local not in found.locals:         # else there is nothing in it
        found.locals.append(local)


def _may_be_lambda(abbrev: Abbrev) -> bool:
    return abbrev.tag in CLASSES and dwarf.AT_NAME not in abbrev.names


_TOLD_ELSEWHERE = frozenset({dwarf.AT_DECLARATION, dwarf.AT_SIGNATURE})
_WITHOUT_CLASSES = frozenset({dwarf.TAG_INLINED, dwarf.TAG_CALL_SITE, dwarf.TAG_GNU_CALL_SITE})
_OPAQUE = frozenset({dwarf.TAG_SUBPROGRAM, dwarf.TAG_INLINED})    # their variables belong to another function


def _any_within(ascending: list[int], start: int, end: int) -> bool:
    at = bisect_left(ascending, start)
    return at < len(ascending) and ascending[at] < end


def _location(unit: Unit, abbrev: Abbrev, at: int) -> tuple[int, bytes] | None:
    """The offset of the operation that gives the variable's address or its place in the thread's block, and how the value is
    computed from what is there, mostly b"". None where the location is another thing: a register, a stack slot, a list.
    §2.6.1: one operation, and a second one for thread-locals."""
    found = unit.find(abbrev, at, dwarf.AT_LOCATION)
    if found is None or found.form not in (dwarf.FORM_EXPRLOC, 0x0A, 0x09):
        return None
    length, body = dwarf.uleb(unit.data, found.at)
    operation = unit.data[body] if length else 0
    if operation in _INDEXED:
        behind = dwarf.uleb(unit.data, body + 1)[1]
    elif operation in _ADDRESSES:
        behind = body + 1 + _ADDRESSES[operation]
    else:
        return None
    rest = unit.data[behind:body + length]
    value = rest[1:] if rest[:1] in _THREAD_LOCAL else rest
    return (body, value) if operation in _INDEXED or not value or value[0] == _DEREF_SIZE else None


def _kept_as(value: bytes) -> str:
    """In words what the rest of a location says. clang keeps a file-local variable that its code only ever sets to one other
    value than its initial one in a bit, which means what that code says: the bit times one number, plus another."""
    if not value:
        return ""
    numbers: list[int] = []
    at = 2 if value[0] == _DEREF_SIZE else 0
    while at < len(value):
        operation, at = value[at], at + 1
        if operation == dwarf.OP_CONSTU:
            number, at = dwarf.uleb(value, at)
            numbers.append(number)
        elif 0x30 <= operation <= 0x4F:          # DW_OP_lit0 to DW_OP_lit31
            numbers.append(operation - 0x30)
    if len(numbers) != 2:
        return f" kept as {value.hex()}"
    return f" kept in a bit that means {numbers[1]} or {(numbers[0] + numbers[1]) % (1 << 64)}"


def _target(unit: Unit, operation: int) -> tuple[str, int] | None:
    """What the operation of `_location` refers to, as a relocation has it."""
    if unit.data[operation] in _INDEXED:
        index, _ = dwarf.uleb(unit.data, operation + 1)
        return unit.sections.addr.relocations.get(unit.addr_base + 8 * index)
    return unit.home.relocations.get(operation + 1)


_ADDRESSES = {dwarf.OP_ADDR: 8, 0x0E: 8, 0x0C: 4}        # operation -> bytes of its operand; DW_OP_const8u, const4u
_INDEXED = frozenset({dwarf.OP_ADDRX, 0xFB})             # the address lies in .debug_addr; DW_OP_GNU_addr_index
_THREAD_LOCAL = (b"\x9b", b"\xe0")                       # DW_OP_form_tls_address, DW_OP_GNU_push_tls_address
_DEREF_SIZE = 0x94                                       # DW_OP_deref_size


def _resolved(printer: Printer, abbrev: Abbrev, at: int) -> tuple[str | None, tuple[Abbrev, int]]:
    """(linkage name or name, the DIE that has the type), through DW_AT_abstract_origin and DW_AT_specification."""
    known = printer.resolved.get(at)
    if known is None:
        known = printer.resolved[at] = _resolve(printer, abbrev, at)
    return known


def _resolve(printer: Printer, abbrev: Abbrev, at: int) -> tuple[str | None, tuple[Abbrev, int]]:
    unit, linkage, name, typed = printer.unit, None, None, None
    for _ in range(4):                       # concrete -> abstract -> declaration
        if typed is None and dwarf.AT_TYPE in abbrev.names:
            typed = abbrev, at               # a declaration may say "auto"
        linkage = linkage or unit.string(abbrev, at, dwarf.AT_LINKAGE_NAME)
        name = name or unit.string(abbrev, at, dwarf.AT_NAME)
        origin = (unit.reference(abbrev, at, dwarf.AT_ABSTRACT_ORIGIN)
                  or unit.reference(abbrev, at, dwarf.AT_SPECIFICATION))
        if not origin or not origin[0] or (dwarf.AT_TYPE in abbrev.names and (linkage or name)):
            break
        abbrev, at = unit.entry(origin[0])
    return linkage or name, typed or (abbrev, at)


def _add_variable(printer: Printer, abbrev: Abbrev, at: int, function: str | None, found: DebugTypes) -> None:
    location = _location(printer.unit, abbrev, at)
    name, (typed, typed_at) = _resolved(printer, abbrev, at)
    if location is None or name is None:
        return
    operation, value = location
    # The bound of an array may be in the definition alone, the type of others in the declaration alone.
    text = printer.variable(abbrev, at) if dwarf.AT_TYPE in abbrev.names else printer.variable(typed, typed_at)
    text += _kept_as(value)
    known = found.variables.get((name, function))
    found.variables[name, function] = text if known in (None, text) else f"{known} or {text}"
    target = _target(printer.unit, operation)
    if target:
        found.places[target] = text


def _add_signature(printer: Printer, die: _Die, found: DebugTypes) -> None:
    unit, abbrev, at = printer.unit, die.abbrev, die.attrs
    if dwarf.AT_ARTIFICIAL in abbrev.names:
        return
    if not printer.is_c and _MANGLED & abbrev.names:
        _add_result(printer, die, found)
        return
    origin = unit.reference(abbrev, at, dwarf.AT_ABSTRACT_ORIGIN)
    if origin and origin[0]:                 # an instance out of line: its parameters may be in another order
        abbrev, at = unit.entry(origin[0])
    name, (typed, typed_at) = _resolved(printer, abbrev, at)
    result = (abbrev, at) if dwarf.AT_TYPE in abbrev.names else (typed, typed_at)
    if name and name not in found.signatures:
        found.signatures[name] = printer.signature(result, (abbrev, at))
    target = None if printer.is_c else unit.address(die.abbrev, die.attrs, dwarf.AT_LOW_PC)
    if target:                               # a static function, whose symbol may be mangled
        found.code[target] = printer.result(*result)


def _add_result(printer: Printer, die: _Die, found: DebugTypes) -> None:
    """The return type of a function that has a mangled name, or that is a member: GCC tells no mangled name of those that
    no other object sees."""
    unit = printer.unit
    name, (typed, typed_at) = _resolved(printer, die.abbrev, die.attrs)
    if name is None or name.startswith(_OF_LIBRARY) or _STRUCTOR.search(name):
        return
    if name.startswith("_Z"):
        if name not in found.signatures:
            found.signatures[name] = printer.result(typed, typed_at)
        return
    target = unit.address(die.abbrev, die.attrs, dwarf.AT_LOW_PC)
    if target:
        found.code[target] = printer.result(typed, typed_at)


def _of_library(printer: Printer, die: _Die) -> bool:
    return (_resolved(printer, die.abbrev, die.attrs)[0] or "").startswith(_OF_LIBRARY)


_OF_LIBRARY = ("_ZSt", "_ZNSt", "_ZNKSt", "_ZN9__gnu_cxx", "_ZNK9__gnu_cxx")     # nobody changes that in a running program
_STRUCTOR = re.compile(r"^_Z.*(?:C[1-5]|D[0-5])E|^~")      # Itanium C++ ABI §5.1.4.3
_MANGLED = frozenset({dwarf.AT_LINKAGE_NAME, dwarf.AT_SPECIFICATION, dwarf.AT_ABSTRACT_ORIGIN})
