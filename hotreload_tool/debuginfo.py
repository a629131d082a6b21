"""Types from an object's debug information, quickly: this runs at every compile.

What the object map needs and nothing more: layouts of types, signatures of functions, types of variables.
Only DIEs at file level are visited; function bodies are stepped over, except where one holds a static local, and in
objects that have local classes or lambdas.
"""
from __future__ import annotations

import hashlib
import re
import struct
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from . import dwarf
from .dwarf import Abbrev, DebugInfoError, DebugSection, DebugSections, RelaTable, Unit

__all__ = ["DebugInfoError", "DebugSection", "DebugSections", "DebugTypes", "RelaTable", "debug_sections", "read",
           "read_object"]

# DW_LANG_* (DWARF 5 table 7.17, dwarfstd.org/languages.html): C89, C, C99, C11, C17, C23. Symbols are plain names.
_C_LANGUAGES = frozenset({0x01, 0x02, 0x0C, 0x1D, 0x2C, 0x3E})
_SKIPPED_NAMESPACES = frozenset({"std", "__gnu_cxx"})
_KEYWORDS = {dwarf.TAG_STRUCT: "struct", dwarf.TAG_CLASS: "class", dwarf.TAG_UNION: "union", dwarf.TAG_ENUM: "enum"}
_QUALIFIERS = {dwarf.TAG_CONST: "const", dwarf.TAG_VOLATILE: "volatile", dwarf.TAG_RESTRICT: "restrict",
               dwarf.TAG_ATOMIC: "_Atomic"}
_POINTERS = {dwarf.TAG_POINTER: "*", dwarf.TAG_REFERENCE: "&", dwarf.TAG_RVALUE: "&&"}
_ANONYMOUS_NAMESPACE = "(anonymous namespace)"

_MAX_DEPTH = 64          # of types within types; damage is deeper
_MAX_TEXT = 400          # characters of one printed piece; longer ones are cut and end in a digest
_MAX_MEMBERS = 4         # shown of an unnamed struct
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
            return f"{text or '()'}, with {{{_cut(('}, {'.join(sorted(layouts)), ''))[0]}}}"
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
    named = _Names(type_units)
    scans = [_Scan(unit) for unit in compile_units]
    for scan in scans:
        for name, signature in scan.named_signatures():
            named.typedefs.setdefault(signature, name)
    for scan in scans:
        scan.collect(_Printer(scan.unit, named), found)
    if known is None or not all(_made_by_gcc(unit) for unit in compile_units):
        known = {}
    printed = [(signature, _layout_of_unit(signature, unit, named, known)) for signature, unit in type_units.items()]
    for signature, texts in printed:
        _add_layout(found, named.name(signature), *texts)       # now that all typedefs are known
    found.typed = True


def _made_by_gcc(unit: Unit) -> bool:
    return (unit.string(*unit.root, dwarf.AT_PRODUCER) or "").startswith("GNU ")


def _layout_of_unit(signature: int, unit: Unit, named: _Names, known: Known) -> tuple[str, str]:
    """GCC's signatures are digests of content (clang's are digests of names), but for the place of bit-fields."""
    kept = known.get(signature)
    if kept is None:
        printer = _LayoutPrinter(unit, named)
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
    key = _digest(f"{name}\n{layout}")
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


class _Names:
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
        if self._depth > _MAX_DEPTH:
            raise DebugInfoError(f"types nest more than {_MAX_DEPTH} deep")

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
        return _KEYWORDS.get(abbrev.tag) if dwarf.AT_NAME not in abbrev.names else None

    def _find(self, signature: int) -> str:
        unit = self._units.get(signature)
        if unit is None:
            return f"type {signature:016x}"      # its unit is not in this object: a split or stripped one
        abbrev, at = unit.entry(unit.type_offset)
        keyword = _KEYWORDS.get(abbrev.tag, "type")
        name = unit.string(abbrev, at, dwarf.AT_NAME)
        if name is None:
            return self.typedefs.get(signature) or _Printer(unit, self).content(unit.type_offset)
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


# ---- the walk over a compile unit ---------------------------------------------------------------


class _Die(NamedTuple):
    offset: int
    abbrev: Abbrev
    attrs: int           # offset of the attributes
    after: int           # offset after them


_TYPES = frozenset(_KEYWORDS)
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

    def collect(self, printer: _Printer, found: DebugTypes) -> None:
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

    def _layouts(self, printer: _Printer, found: DebugTypes) -> None:
        """Types that the compiler put into no type unit."""
        if not self.found[_LAYOUT]:
            return
        for _, abbrev, at, _ in self.found[_TYPEDEF]:
            target = self.unit.reference(abbrev, at, dwarf.AT_TYPE)
            if target and target[0]:
                printer.typedefs.setdefault(target[0], self.unit.string(abbrev, at, dwarf.AT_NAME) or "")
        layouts = _LayoutPrinter(self.unit, printer.names)
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

    def _static_locals(self, printer: _Printer, function: _Die, addresses: list[int], found: DebugTypes) -> None:
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


    def _local_classes(self, printer: _Printer, function: _Die, found: DebugTypes) -> None:
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

    def _identifiers_around(self, printer: _Printer, function: _Die) -> frozenset[str]:
        """Identifiers in the mangled name of a function; of a lambda's call operator, which may have none, those of the
        function that the lambda is in."""
        for _ in range(_MAX_DEPTH):
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
    return abbrev.children and abbrev.tag in _CLASSES and not abbrev.names & _TOLD_ELSEWHERE


def _add_local_class(printer: _Printer, die: _Die, function: frozenset[str], found: DebugTypes) -> None:
    unit = printer.unit
    name = unit.string(die.abbrev, die.attrs, dwarf.AT_NAME)
    if name is None and not any(child.tag == dwarf.TAG_SUBPROGRAM and unit.string(child, at, dwarf.AT_NAME) == "operator()"
                                for _, child, at in unit.children(die.abbrev, die.attrs)):
        return                               # a struct without a name
    _add_local(found, function if name is None else function | {name}, name is None, printer.members((die.offset, 0)))


def _add_lambda_of(printer: _Printer, die: _Die, found: DebugTypes) -> None:
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
    return abbrev.tag in _CLASSES and dwarf.AT_NAME not in abbrev.names


_CLASSES = frozenset({dwarf.TAG_STRUCT, dwarf.TAG_CLASS})
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


def _resolved(printer: _Printer, abbrev: Abbrev, at: int) -> tuple[str | None, tuple[Abbrev, int]]:
    """(linkage name or name, the DIE that has the type), through DW_AT_abstract_origin and DW_AT_specification."""
    known = printer.resolved.get(at)
    if known is None:
        known = printer.resolved[at] = _resolve(printer, abbrev, at)
    return known


def _resolve(printer: _Printer, abbrev: Abbrev, at: int) -> tuple[str | None, tuple[Abbrev, int]]:
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


def _add_variable(printer: _Printer, abbrev: Abbrev, at: int, function: str | None, found: DebugTypes) -> None:
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


def _add_signature(printer: _Printer, die: _Die, found: DebugTypes) -> None:
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


def _add_result(printer: _Printer, die: _Die, found: DebugTypes) -> None:
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


def _of_library(printer: _Printer, die: _Die) -> bool:
    return (_resolved(printer, die.abbrev, die.attrs)[0] or "").startswith(_OF_LIBRARY)


_OF_LIBRARY = ("_ZSt", "_ZNSt", "_ZNKSt", "_ZN9__gnu_cxx", "_ZNK9__gnu_cxx")     # nobody changes that in a running program
_STRUCTOR = re.compile(r"^_Z.*(?:C[1-5]|D[0-5])E|^~")      # Itanium C++ ABI §5.1.4.3
_MANGLED = frozenset({dwarf.AT_LINKAGE_NAME, dwarf.AT_SPECIFICATION, dwarf.AT_ABSTRACT_ORIGIN})


# ---- printing -----------------------------------------------------------------------------------


_Parts = tuple[str, str]         # a type as C writes it, before and after the declared name
_POINTER_END = re.compile(r"[*&][\w ]*$")


def _joined(parts: _Parts) -> str:
    before, after = parts
    return f"{before} {after}" if after and after[0] in "([" and before[-1:] not in ("*", "&", "(") else before + after


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _cut(parts: _Parts) -> _Parts:
    """Bounds what is printed: types that name each other twice would double it at every step."""
    if len(parts[0]) + len(parts[1]) <= _MAX_TEXT:
        return parts
    return f"{parts[0][:_MAX_TEXT // 4]}...#{_digest(parts[0] + chr(0) + parts[1])}", ""


class _Printer:
    """Prints the types of one unit."""

    def __init__(self, unit: Unit, names: _Names) -> None:
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
        layouts = _LayoutPrinter(unit, self.names)
        layouts.described = set() if target[1] else self.described
        return layouts.described_type(unit.type_offset if target[1] else target[0])[0]

    def pointed_to(self, abbrev: Abbrev, at: int) -> tuple[int, int] | None:
        """A reference to the class that a member function's first parameter points to."""
        for _ in range(6):                   # origin of the parameter, const, pointer, const
            target = self.unit.reference(abbrev, at, dwarf.AT_TYPE) or self.unit.reference(abbrev, at, dwarf.AT_ABSTRACT_ORIGIN)
            if target is None or target[1]:
                return target
            abbrev, at = self.unit.entry(target[0])
            if abbrev.tag in _CLASSES:
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
        return _cut((f"{_KEYWORDS.get(abbrev.tag, 'type')} {{{separator.join(shown)}}}", ""))[0]

    def layout(self, offset: int) -> str:
        """16 hex digits that change with the layout of the type at `offset`, and of those it holds by value."""
        known = self._layouts.get(offset)
        if known is None:
            self.names.enter()
            abbrev, at = self.unit.entry(offset)
            lines = [self.text(offset), str(self.unit.constant(abbrev, at, dwarf.AT_BYTE_SIZE))]
            for _, child, attrs in self.unit.children(abbrev, at):
                lines += self._layout_of_child(child, attrs)
            known = self._layouts[offset] = _digest("\n".join(lines))
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
        for _ in range(_MAX_DEPTH):
            target = self.unit.reference(abbrev, at, dwarf.AT_TYPE)
            if target is None or target[1]:
                return target or (0, 0)
            abbrev, at = self.unit.entry(target[0])
            if abbrev.tag in _KEYWORDS:
                signature = self.unit.reference(abbrev, at, dwarf.AT_SIGNATURE)
                return signature or ((0, 0) if dwarf.AT_DECLARATION in abbrev.names else target)
            if abbrev.tag not in _TRANSPARENT:
                return 0, 0
        raise DebugInfoError(f"types nest more than {_MAX_DEPTH} deep")

    # ---- parts ----------------------------------------------------------------------------------

    def _parts(self, offset: int) -> _Parts:
        known = self._memo.get(offset)
        if known is None:
            self.names.enter()
            abbrev, at = self.unit.entry(offset)
            known = self._memo[offset] = _cut(self._make(offset, abbrev, at))
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
        if tag in _KEYWORDS:
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
        return f"{_KEYWORDS[abbrev.tag]} {name}" if name else self.content(offset)

    def _behind_typedef(self, abbrev: Abbrev, at: int) -> str:
        """What a typedef stands for; of an unnamed struct, union or enum the keyword alone."""
        target = self.unit.reference(abbrev, at, dwarf.AT_TYPE)
        if target is None:
            return "void"
        if target[0]:
            behind, attrs = self.unit.entry(target[0])
            signature = self.unit.reference(behind, attrs, dwarf.AT_SIGNATURE)
            if not signature:
                unnamed = behind.tag in _KEYWORDS and dwarf.AT_NAME not in behind.names
                return _KEYWORDS[behind.tag] if unnamed else self.text(target[0])
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
        return _cut((f"({', '.join(shown)})", ""))[0] if shown else "()"


class _LayoutPrinter(_Printer):
    """Prints layouts. A typedef is printed as what it stands for, so that another name for the same thing is no change;
    types without any name count by content."""

    def __init__(self, unit: Unit, names: _Names) -> None:
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
        text = f"{_KEYWORDS.get(abbrev.tag, 'type')} {self.unit.constant(abbrev, at, dwarf.AT_BYTE_SIZE)}"
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
        for _ in range(_MAX_DEPTH):
            target = unit.reference(child, at, dwarf.AT_TYPE)
            if target is None:
                return ""
            if target[1]:
                return self._nameless_unit(target[1], typedef)
            child, at = unit.entry(target[0])
            if child.tag in _KEYWORDS:
                signature = unit.reference(child, at, dwarf.AT_SIGNATURE)
                if signature:
                    return self._nameless_unit(signature[1], typedef)
                named = typedef or dwarf.AT_NAME in child.names
                told = dwarf.AT_DECLARATION in child.names or named and target[0] in self.described
                return "" if told else f" #{self.layout(target[0])}"
            if child.tag not in _TRANSPARENT:
                return ""
            typedef = unit.string(child, at, dwarf.AT_NAME) if child.tag == dwarf.TAG_TYPEDEF else None
        raise DebugInfoError(f"types nest more than {_MAX_DEPTH} deep")

    def _nameless_unit(self, signature: int, typedef: str | None) -> str:
        if self.names.unnamed(signature) is None:
            return ""
        if typedef:
            self.given.append((signature, typedef))
            return ""
        self.names.enter()
        unit = self.names.unit(signature)
        inner = _LayoutPrinter(unit, self.names)
        inner.given = self.given
        layout, _ = inner.described_type(unit.type_offset)
        self.names.leave()
        return f" #{_digest(layout)}"

    def layout(self, offset: int) -> str:
        known = self._layouts.get(offset)
        if known is None:
            self.names.enter()
            known = self._layouts[offset] = _digest(self.described_type(offset)[0])
            self.names.leave()
        return known

    def _make(self, offset: int, abbrev: Abbrev, at: int) -> _Parts:
        if abbrev.tag != dwarf.TAG_TYPEDEF:
            return super()._make(offset, abbrev, at)
        if self._behind_typedef(abbrev, at) in _NAMELESS:
            return self.unit.string(abbrev, at, dwarf.AT_NAME) or "", ""
        return self._type_of(abbrev, at)


_NAMELESS = frozenset(_KEYWORDS.values())
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
