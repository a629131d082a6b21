"""Old object maps against new ones: what changed, by name.

Everything here is pure data: it reads no file and knows no process. `plan.py` decides what may be done about it.
"""
from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import layouts
from .names import LOCAL_SEPARATOR
from .objectmap import DataEntry, FunctionEntry, ObjectMap

Entry = FunctionEntry | DataEntry

_LIBRARY = re.compile(r"\w+ (?:std|__gnu_cxx|__cxxabiv1)::")
_LIBRARY_VTABLES = ("_ZTVSt", "_ZTVNSt", "_ZTVS", "_ZTVN10__cxxabiv1", "_ZTVN9__gnu_cxx", "_ZTVNKSt")

_CLONE_SUFFIX = re.compile(r"(?:\.(?:constprop|isra|part|cold|lto_priv|llvm|specialized)(?:\.\d+)*)+$")
# An initial value of zero moves a variable to .bss; a constant with an address in it goes to .data.rel.ro. Neither makes it
# another variable.
_KIND_CLASS = {"data": "writable", "bss": "writable", "rodata": "constant", "relro": "constant",
               "tdata": "thread-local", "tbss": "thread-local"}


class Definition(NamedTuple):
    """`object` defines `entry.name`."""
    object: str
    entry: Entry


def kind_class(kind: str) -> str:
    """"writable", "constant" or "thread-local": what a `DataEntry.kind` means to a program."""
    return _KIND_CLASS.get(kind, kind)


def is_strong(definition: Definition) -> bool:
    """Whether it prevails over others. An index knows without reading the entry."""
    known = getattr(definition, "strong", None)
    return definition.entry.comdat is None and definition.entry.binding != "weak" if known is None else bool(known)


def prevailing(definitions: Iterable[Definition]) -> Definition | None:
    """The definition that the linker took, of all those of one name in link order: a strong one, else the first."""
    found, weak = None, getattr(definitions, "weak", False)
    for definition in definitions:
        if weak or is_strong(definition):
            return definition
        found = found or definition
    return found


def entries(m: ObjectMap) -> list[Entry]:
    """Functions and data of one object."""
    return [*m.functions, *m.data]


def without_clone_suffix(name: str) -> str:
    """`f.constprop.0~a.o` -> `f~a.o`: compilers number clones anew each time."""
    symbol, separator, obj = name.partition(LOCAL_SEPARATOR)
    return _CLONE_SUFFIX.sub("", symbol) + separator + obj


# ---- what a difference is ----------------------------------------------------------------------------------------


class DataChange(NamedTuple):
    """One variable, before and after. `what` holds any of "size", "align", "kind", "type", "content"."""
    name: str
    was: str               # its old unique name; another one where a static local was renumbered
    what: tuple[str, ...]
    old: DataEntry
    new: DataEntry


class SignatureChange(NamedTuple):
    name: str
    old: str
    new: str


@dataclass(frozen=True)
class TypeChange:
    """Types of one printed name whose layout differs, by digest (16 hex digits), and the text of one of each."""
    object: str
    name: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    old_layout: str | None = None
    new_layout: str | None = None

    @property
    def compatible(self) -> layouts.Compatible | None:
        """Set if objects that were made before are right under the new layout."""
        if self.old_layout is None or self.new_layout is None or len(self.old) != 1 or len(self.new) != 1:
            return None
        return layouts.compatible(self.name, self.old_layout, self.new_layout)


class VirtualChange(NamedTuple):
    """A class whose own virtual functions changed in a way that existing tables contradict."""
    object: str
    name: str
    what: str


class SpecialChange(NamedTuple):
    object: str
    section: str
    what: str              # "added" | "removed" | "changed"


class Ambiguity(NamedTuple):
    """New static locals that could each be more than one, or none, of the old ones."""
    object: str
    base: str              # "n" of n.0, n.1 …
    new: tuple[str, ...]
    old: tuple[str, ...]
    reason: str


@dataclass
class Correlation:
    """Which new C static local is which old one."""
    pairs: dict[str, str] = field(default_factory=dict)       # new unique name -> old unique name
    ambiguous: list[Ambiguity] = field(default_factory=list)
    inherited: dict[str, str] = field(default_factory=dict)   # new name -> why it takes over from a function that is gone

    @property
    def ambiguous_names(self) -> set[str]:
        return {name for a in self.ambiguous for name in a.new}


@dataclass
class Difference:
    """All lists hold image-wide unique names, sorted; all are empty if nothing changed."""
    changed: list[str] = field(default_factory=list)          # functions
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    data_added: list[str] = field(default_factory=list)
    data_removed: list[str] = field(default_factory=list)
    data_changed: list[DataChange] = field(default_factory=list)
    became_data: list[str] = field(default_factory=list)      # functions whose name is a variable now
    became_function: list[str] = field(default_factory=list)
    signatures: list[SignatureChange] = field(default_factory=list)
    types: list[TypeChange] = field(default_factory=list)
    types_added: list[str] = field(default_factory=list)      # printed names of types that only appeared
    types_removed: list[str] = field(default_factory=list)
    special: list[SpecialChange] = field(default_factory=list)
    pairs: dict[str, str] = field(default_factory=dict)       # every static local that persists, new name -> old name
    ambiguous: list[Ambiguity] = field(default_factory=list)
    inherited: dict[str, str] = field(default_factory=dict)
    symbols: dict[str, str] = field(default_factory=dict)     # unique name -> the name in the source, for those above

    @property
    def renumbered(self) -> dict[str, str]:
        """Static locals that kept their identity under another number: new name -> old name. No change by itself."""
        return {new: old for new, old in self.pairs.items() if new != old}

    @property
    def empty(self) -> bool:
        return not any((self.changed, self.added, self.removed, self.data_added, self.data_removed, self.data_changed,
                        self.became_data, self.became_function, self.signatures, self.types, self.special, self.ambiguous))


def compare(old: ObjectMap | None, new: ObjectMap | None) -> Difference:
    """One object before and after; None where it did not exist. The two may have different paths."""
    if old is not None and new is not None and old.object != new.object:
        old = _as_object(old, new.object)
    return compare_objects([old] if old else [], [new] if new else [])


def compare_objects(olds: Iterable[ObjectMap], news: Iterable[ObjectMap]) -> Difference:
    """Two sets of objects, each in link order, as two images: objects of the same name are each other's successors."""
    old_maps, new_maps = {m.object: m for m in olds}, {m.object: m for m in news}
    result = Difference()
    for obj, new in new_maps.items():
        if obj in old_maps:
            found = correlate(old_maps[obj], new)
            result.pairs.update(found.pairs)
            result.ambiguous += found.ambiguous
            result.inherited.update(found.inherited)
    before, after = _resolve(old_maps.values()), _resolve(new_maps.values())
    _compare_functions(result, before, after)
    _compare_data(result, before, after)
    _compare_types(result, old_maps, new_maps)
    result.special = [c for obj in {**old_maps, **new_maps} for c in compare_special(old_maps.get(obj), new_maps.get(obj))]
    _keep_symbols(result, before, after)
    return result


def summary(difference: Difference) -> dict[str, list[str]]:
    """`hotpatch diff`: names as the source has them; the unique name where two of a list would read the same."""
    lists = {"changed": difference.changed, "added": difference.added + difference.became_function,
             "removed": difference.removed + difference.became_data,
             "data": [*difference.data_added, *difference.data_removed, *(c.name for c in difference.data_changed)]}
    return {key: _plain(names, difference.symbols) for key, names in lists.items()}


def _plain(names: Sequence[str], symbols: Mapping[str, str]) -> list[str]:
    unique = sorted(set(names))
    count = Counter(symbols.get(n, n) for n in unique)
    return sorted(n if count[symbols.get(n, n)] > 1 else symbols.get(n, n) for n in unique)


def _as_object(old: ObjectMap, obj: str) -> ObjectMap:
    """`old` as if its file had been called `obj`: its local names end in the file's name."""
    tail, new_tail = LOCAL_SEPARATOR + old.object, LOCAL_SEPARATOR + obj

    def renamed(name: str) -> str:
        return name[:-len(tail)] + new_tail if name.endswith(tail) else name

    functions = [dataclasses.replace(f, name=renamed(f.name), refs=[renamed(r) for r in f.refs],
                                     direct=[renamed(r) for r in f.direct]) for f in old.functions]
    data = [dataclasses.replace(d, name=renamed(d.name), refs=[renamed(r) for r in d.refs]) for d in old.data]
    return dataclasses.replace(old, object=obj, functions=functions, data=data)


def _resolve(maps: Iterable[ObjectMap]) -> dict[str, Entry]:
    """Name -> the definition that prevails."""
    found: dict[str, list[Definition]] = {}
    for m in maps:
        for entry in entries(m):
            found.setdefault(entry.name, []).append(Definition(m.object, entry))
    return {name: d.entry for name, ds in found.items() if (d := prevailing(ds)) is not None}


def _compare_functions(result: Difference, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> None:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if isinstance(old, FunctionEntry) and isinstance(new, FunctionEntry):
            if old.digest != new.digest:
                result.changed.append(name)
            if old.signature and new.signature and old.signature != new.signature:
                result.signatures.append(SignatureChange(name, old.signature, new.signature))
        elif isinstance(new, FunctionEntry):
            (result.added if old is None else result.became_function).append(name)
        elif isinstance(old, FunctionEntry):
            (result.removed if new is None else result.became_data).append(name)


def _compare_data(result: Difference, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> None:
    unsure = {name for a in result.ambiguous for name in a.new}
    unsure_old = {name for a in result.ambiguous for name in a.old}
    persisting: set[str] = set()
    for name in sorted(after):
        new = after[name]
        if not isinstance(new, DataEntry) or name in unsure or isinstance(before.get(name), FunctionEntry):
            continue
        was = result.pairs.get(name) if new.static_local else name
        old = before.get(was) if was else None
        if not isinstance(old, DataEntry) or was is None or bool(old.static_local) != bool(new.static_local):
            result.data_added.append(name)
            continue
        persisting.add(was)
        what = data_changes(old, new)
        if what:
            result.data_changed.append(DataChange(name, was, what, old, new))
    result.data_removed = sorted(name for name, old in before.items() if isinstance(old, DataEntry)
                                 and name not in persisting | unsure_old and not isinstance(after.get(name), FunctionEntry))


def data_changes(old: DataEntry, new: DataEntry) -> tuple[str, ...]:
    """In what two versions of one variable differ. A type that one side does not know is no difference."""
    return tuple(what for what, differs in (
        ("size", old.size != new.size),
        ("align", old.align != new.align),
        ("kind", kind_class(old.kind) != kind_class(new.kind)),
        ("type", old.type is not None and new.type is not None and old.type != new.type),
        ("content", old.digest != new.digest),
    ) if differs)


def _compare_types(result: Difference, olds: Mapping[str, ObjectMap], news: Mapping[str, ObjectMap]) -> None:
    result.types = layout_changes(olds, news)
    changed = {c.name for c in result.types}
    before, after = ({s: n for m in maps.values() for s, n in m.types.items()} for maps in (olds, news))
    result.types_removed = sorted({n for s, n in before.items() if s not in after} - changed)
    result.types_added = sorted({n for s, n in after.items() if s not in before} - changed)


def layout_changes(olds: Mapping[str, ObjectMap], news: Mapping[str, ObjectMap],
                   elsewhere: Container[str] = ()) -> list[TypeChange]:
    """Types that one object, or the whole set, now has with another layout under the same name.

    `elsewhere` are digests in use by other objects, not being compared. A type that moves to another object and
    changes on the way is found by looking at the whole set, where its old digest has died out and its new one is
    new. C lets two objects have different types of one name: those are no change as long as both live on.
    """
    found = [change for obj, new in news.items() if obj in olds
             for change in _pair_types(obj, olds[obj].types, new.types)]
    before = {s: n for m in olds.values() for s, n in m.types.items()}
    after = {s: n for m in news.values() for s, n in m.types.items()}
    dead = {s: n for s, n in before.items() if s not in after and s not in elsewhere}
    born = {s: n for s, n in after.items() if s not in before and s not in elsewhere}
    said = {c.name for c in found}
    users = {s: obj for obj, m in reversed(list(news.items())) for s in m.types}
    found += [dataclasses.replace(c, object=users[c.new[0]]) for c in _pair_types("", dead, born) if c.name not in said]
    return [dataclasses.replace(c, old_layout=_layout(olds, c.old[0]), new_layout=_layout(news, c.new[0])) for c in found]


def returned_types(past: Mapping[str, Mapping[str, str | None]], living: Container[str],
                   news: Mapping[str, ObjectMap]) -> list[TypeChange]:
    """Types that had left all objects and are back with another layout. `past`: printed name -> digest -> layout, of those
    that left; `living`: digests of all types that are there."""
    found: dict[str, TypeChange] = {}
    for obj, new in news.items():
        for digest, name in new.types.items():
            known = past.get(name, {})
            if known and digest not in known and digest not in living:
                old = list(known)[-1]
                found.setdefault(name, TypeChange(obj, name, (old,), (digest,), known[old], new.layouts.get(digest)))
    return list(found.values())


def _layout(maps: Mapping[str, ObjectMap], digest: str) -> str | None:
    return next((m.layouts[digest] for m in maps.values() if digest in m.layouts), None)


def mentions(printed: str, name: str) -> bool:
    """Whether a printed type speaks of the type called `name` ("struct foo", "class ns::Foo", "T")."""
    bare = name.partition(" ")[2] or name
    return re.search(rf"(?<![\w:]){re.escape(bare)}(?![\w:])", printed) is not None


def worth_telling(changed: Collection[str]) -> list[str]:
    """Names of types without those that the C++ library makes from other types of the list."""
    own = [name for name in changed if not _LIBRARY.match(name)]
    return sorted(name for name in changed if name in own or not any(mentions(name, other) for other in own))


def is_vtable(entry: DataEntry) -> bool:
    """Whether it is the table of a class's virtual functions (Itanium C++ ABI §5.1.4.1)."""
    return entry.symbol.startswith("_ZTV") and kind_class(entry.kind) == "constant"


def is_users_vtable(symbol: str) -> bool:
    """Whether a symbol is a table of virtual functions of a class outside the C++ library."""
    return symbol.startswith("_ZTV") and not symbol.startswith(_LIBRARY_VTABLES)


def virtual_changes(olds: Mapping[str, ObjectMap], news: Mapping[str, ObjectMap],
                    anywhere: Callable[[str], str | None]) -> list[VirtualChange]:
    """Classes of `news` whose existing tables of virtual functions would be read wrongly. `olds`: all objects as they are;
    `anywhere`: the virtual functions of a class as the first of them has it."""
    found = []
    for obj, new in news.items():
        mine = olds[obj].virtuals if obj in olds else {}
        for name, virtuals in new.virtuals.items():
            old = mine[name] if name in mine else anywhere(name)
            what = layouts.virtual_conflict(old, virtuals) if old not in (None, virtuals) else None
            if what is not None:
                found.append(VirtualChange(obj, name, what))
    return found


def _pair_types(obj: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[TypeChange]:
    gone: dict[str, list[str]] = {}
    for signature, name in before.items():
        if signature not in after:
            gone.setdefault(name, []).append(signature)
    come: dict[str, list[str]] = {}
    for signature, name in after.items():
        if signature not in before:
            come.setdefault(name, []).append(signature)
    return [TypeChange(obj, name, tuple(sorted(gone[name])), tuple(sorted(come[name]))) for name in sorted(gone) if name in come]


def compare_special(old: ObjectMap | None, new: ObjectMap | None) -> list[SpecialChange]:
    """Sections that are no functions and no named objects, compared as a whole."""
    before, after = _special(old), _special(new)
    obj = new.object if new else old.object if old else ""
    return [SpecialChange(obj, section, "added" if section not in before else "removed" if section not in after else "changed")
            for section in sorted(before.keys() | after.keys()) if before.get(section) != after.get(section)]


def _special(m: ObjectMap | None) -> dict[str, list[tuple[int, str]]]:
    found: dict[str, list[tuple[int, str]]] = {}
    for entry in m.special if m else []:
        found.setdefault(entry.section, []).append((entry.size, entry.digest))
    return found


def _keep_symbols(result: Difference, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> None:
    named = {*result.changed, *result.added, *result.removed, *result.data_added, *result.data_removed, *result.became_data,
             *result.became_function, *(c.name for c in result.data_changed)}
    result.symbols = {name: (after.get(name) or before[name]).symbol for name in named}


# ---- C static locals ---------------------------------------------------------------------------------------------
#
# GCC numbers them per translation unit, last one first, so that a new one takes the number of an old one. What tells
# them apart is which functions use them, and in which order. Never the number.


class Retired(NamedTuple):
    """A static local that is no longer in the source but still in the process; its function may come back."""
    entry: DataEntry            # under a name of its own, since its number is taken by others
    users: frozenset[str]       # functions that used it


def retire(old: ObjectMap, names: Collection[str], mark: str) -> dict[str, Retired]:
    """What becomes of those static locals of `old` that are in `names`: old name -> the retired one, in order of use.
    `mark` makes their new names differ from all others. Without users they are forgotten."""
    statics = _Statics(old)
    in_order = dict.fromkeys(name for used in statics.uses.values() for name in used if name in names)
    return {name: Retired(dataclasses.replace(statics.entries[name], name=_marked(name, mark)), frozenset(statics.users[name]))
            for name in in_order}


def _marked(name: str, mark: str) -> str:
    symbol, separator, obj = name.partition(LOCAL_SEPARATOR)
    return f"{symbol}!{mark}{separator}{obj}"


def correlate(old: ObjectMap, new: ObjectMap, retired: Iterable[Retired] = ()) -> Correlation:
    """Find for each C static local of `new` the one of `old` that it continues.

    From sure to likely: a function that did not change uses its static locals in the same order; then equal sets of
    users and an equal shape; then users that overlap; then users of which one came out of, or went into, the other;
    then a `retired` one of the same users, shape and initial value; last, the only one left whose users are all
    gone. Where two answers are possible none is given, and the variables are listed in `ambiguous`. All others are
    new.
    """
    result = Correlation()
    before, after = _Statics(old, list(retired)), _Statics(new)
    if not before.entries or not after.entries:
        return result
    certain, torn = _by_unchanged_users(old, new, before, after)
    for base in sorted({d.static_local for d in after.entries.values() if d.static_local}):
        _Matching(base, before, after, result).run(certain, torn)
    return result


class _Statics:
    """The static locals of one object and who uses them."""

    def __init__(self, m: ObjectMap, retired: Sequence[Retired] = ()) -> None:
        self.object = m.object
        self.entries = {d.name: d for d in m.data if d.static_local}
        self.functions = {without_clone_suffix(f.name) for f in m.functions}
        self.uses: dict[str, list[str]] = {}              # function -> static locals in order of use, also through data
        self.users: dict[str, set[str]] = {name: set() for name in self.entries}
        data = {d.name: d for d in m.data}
        for function in m.functions if self.entries else []:
            user = without_clone_suffix(function.name)
            for name in self._reached(function.refs, data):
                if user not in self.users[name]:
                    self.users[name].add(user)
                    self.uses.setdefault(user, []).append(name)
        self.calls = {without_clone_suffix(f.name): {without_clone_suffix(r) for r in f.refs} for f in m.functions}
        self.retired = {r.entry.name for r in retired}
        for r in retired:
            self.entries[r.entry.name], self.users[r.entry.name] = r.entry, set(r.users)
            for user in r.users:
                self.uses.setdefault(user, []).append(r.entry.name)

    def _reached(self, refs: Sequence[str], data: Mapping[str, DataEntry]) -> list[str]:
        found: dict[str, None] = {}
        seen: set[str] = set()
        pending = list(reversed(refs))
        while pending:
            name = pending.pop()
            if name in seen or name not in data:
                continue
            seen.add(name)
            if name in self.entries:
                found.setdefault(name)
            pending += reversed(data[name].refs)
        return list(found)

    def of(self, base: str, retired: bool = False) -> list[str]:
        return [n for n, d in self.entries.items() if d.static_local == base and (n in self.retired) == retired]


def _by_unchanged_users(old: ObjectMap, new: ObjectMap, before: _Statics, after: _Statics) -> tuple[dict[str, str], set[str]]:
    """(new name -> old name as unchanged users have it, names of both sides about which they disagree).

    A digest covers static locals by base name and order of use, so equal digests pair them one to one.
    """
    known = {e.name: e for e in entries(old) if e.name not in before.entries}
    votes: dict[str, set[str]] = {}
    for user in entries(new):
        was = known.get(user.name)
        if was is None or type(was) is not type(user) or was.digest != user.digest or user.name in after.entries:
            continue
        for base in {after.entries[r].static_local for r in user.refs if r in after.entries}:
            mine = [r for r in user.refs if r in after.entries and after.entries[r].static_local == base]
            theirs = [r for r in was.refs if r in before.entries and before.entries[r].static_local == base]
            for name, old_name in zip(mine, theirs):
                votes.setdefault(name, set()).add(old_name)
    claims = Counter(name for names in votes.values() for name in names)
    certain, torn = {}, set()
    for name, names in votes.items():
        if len(names) == 1 and claims[next(iter(names))] == 1:
            certain[name] = next(iter(names))
        else:
            torn |= {name, *names}
    return certain, torn


class _Matching:
    """Pairs up the static locals of one base name."""

    def __init__(self, base: str, before: _Statics, after: _Statics, result: Correlation) -> None:
        self.base, self.before, self.after, self.result = base, before, after, result
        self.olds, self.news = before.of(base), after.of(base)      # those without an answer yet

    def run(self, certain: Mapping[str, str], torn: set[str]) -> None:
        for new in [n for n in self.news if n in certain]:
            self._pair([new], [certain[new]])
        self._unsure([n for n in self.news if n in torn], [o for o in self.olds if o in torn],
                     "functions that did not change disagree about which one it is")
        self._by_equal_users()
        self._by_overlapping_users(same_shape=True)
        self._by_overlapping_users(same_shape=False)
        self._by_calls()
        self._unused()
        self._by_coming_back()
        self._by_vanished_users()

    def _pair(self, news: Sequence[str], olds: Sequence[str]) -> None:
        for new, old in zip(news, olds):
            self.result.pairs[new] = old
            self.news.remove(new)
            self.olds.remove(old)

    def _unsure(self, news: Sequence[str], olds: Sequence[str], reason: str) -> None:
        if not news:
            return
        self.result.ambiguous.append(Ambiguity(self.after.object, self.base, tuple(news), tuple(olds), reason))
        self.news = [n for n in self.news if n not in news]
        self.olds = [o for o in self.olds if o not in olds]

    def _by_equal_users(self, coming_back: bool = False) -> None:
        """Of those that come back, the initial value must be the same too, and if it is not clear which, they are new."""
        groups: dict[tuple[object, ...], tuple[list[str], list[str]]] = {}
        for side, statics in ((0, self.before), (1, self.after)):
            for name in (self.olds, self.news)[side]:
                if statics.users[name]:
                    entry = statics.entries[name]
                    key = (_shape(entry), entry.digest if coming_back else "", frozenset(statics.users[name]))
                    groups.setdefault(key, ([], []))[side].append(name)
        for olds, news in groups.values():
            if not olds or not news or coming_back and len(olds) != len(news):
                continue
            where = ", ".join(sorted(self.after.users[news[0]]))
            if len(olds) != len(news):
                self._unsure(news, olds, f"{where} had {len(olds)} of this name and type, now has {len(news)}")
                continue
            ordered = self._in_order(olds, news)
            if ordered is None:
                self._unsure(news, olds, f"{where} uses several of this name and type, now in another order")
            else:
                self._pair(*ordered)

    def _in_order(self, olds: Sequence[str], news: Sequence[str]) -> tuple[list[str], list[str]] | None:
        """Both sides ordered so that they correspond; None if their users, or the compiler's numbering, contradict.

        The compiler may move blocks about, so that the order of use alone would not tell; its numbers run in
        the order of declaration. Only where both say the same is there an answer.
        """
        by_number = dict(zip(sorted(news, key=_number), sorted(olds, key=_number)))
        for user in self.after.users[news[0]]:
            mine = [n for n in self.after.uses[user] if n in news]
            theirs = [o for o in self.before.uses[user] if o in olds]
            if dict(zip(mine, theirs)) != by_number:
                return None
        return list(by_number), list(by_number.values())

    def _by_coming_back(self) -> None:
        living, self.olds = self.olds, self.before.of(self.base, retired=True)
        self._by_equal_users(coming_back=True)
        self.olds = living

    def _by_overlapping_users(self, same_shape: bool) -> None:
        for news, olds in self._components(same_shape, self._overlap):
            if len(news) == len(olds) == 1:
                self._pair(news, olds)
            else:
                self._unsure(news, olds, "functions that share it were merged or split, so that it could be more than one")

    def _overlap(self, new: str, old: str) -> bool:
        return not self.after.users[new].isdisjoint(self.before.users[old])

    def _components(self, same_shape: bool, related_users: Callable[[str, str], bool]) -> list[tuple[list[str], list[str]]]:
        """Connected parts of the graph "could be the same, as far as their users tell"."""
        def related(new: str, old: str) -> bool:
            fits = not same_shape or _shape(self.after.entries[new]) == _shape(self.before.entries[old])
            return fits and related_users(new, old)

        parts: list[tuple[list[str], list[str]]] = []
        for new in self.news:
            olds = [o for o in self.olds if related(new, o)]
            joined = [p for p in parts if not set(p[1]).isdisjoint(olds)]
            merged = ([*(n for p in joined for n in p[0]), new], list(dict.fromkeys([*(o for p in joined for o in p[1]), *olds])))
            parts = [p for p in parts if p not in joined] + [merged]
        return [p for p in parts if p[1]]

    def _by_calls(self) -> None:
        """A function that was inlined has code of its own now, so that its callers no longer use its variable; or the
        reverse. To begin anew with the initial value would lose what the program has counted so far."""
        for news, olds in self._components(same_shape=True, related_users=self._called):
            if len(news) == len(olds) == 1:
                where, was = (", ".join(sorted(s.users[n])) for s, n in ((self.after, news[0]), (self.before, olds[0])))
                self.result.inherited[news[0]] = f"{self.base} in {where} goes on with the value it had in {was}"
                self._pair(news, olds)
            else:
                self._unsure(news, olds, "functions were inlined or given code of their own, so that it could be more than one")

    def _called(self, new: str, old: str) -> bool:
        """Whether a user of `old` calls one of `new` now, or a user of `new` called one of `old` before."""
        users, were = self.after.users[new], self.before.users[old]
        return any(not self.after.calls.get(u, set()).isdisjoint(users) for u in were) \
            or any(not self.before.calls.get(u, set()).isdisjoint(were) for u in users)

    def _unused(self) -> None:
        """Those that no code reaches, before or after: no program can tell them apart."""
        news = sorted((n for n in self.news if not self.after.users[n]), key=_number)
        olds = sorted((o for o in self.olds if not self.before.users[o]), key=_number)
        if [_shape(self.after.entries[n]) for n in news] == [_shape(self.before.entries[o]) for o in olds]:
            self._pair(news, olds)

    def _by_vanished_users(self) -> None:
        """A function that was renamed, or inlined away: its variable goes on, if only one can be meant."""
        for shape in {_shape(self.after.entries[n]): None for n in self.news}:
            news = [n for n in self.news if _shape(self.after.entries[n]) == shape and self.after.users[n]]
            olds = [o for o in self.olds if _shape(self.before.entries[o]) == shape and self.before.users[o]]
            gone = [o for o in olds if self.before.users[o].isdisjoint(self.after.functions)]
            if not gone or not news:
                continue
            users = ", ".join(sorted(u for o in gone for u in self.before.users[o]))
            if len(news) == len(olds) == 1:
                self.result.inherited[news[0]] = (f"{self.base} in {', '.join(sorted(self.after.users[news[0]]))} goes on "
                                                  f"with the value it had in {users}, which is gone")
                self._pair(news, olds)
            else:
                self._unsure(news, olds, f"{users} is gone, and more than one could be its successor")


def _shape(entry: DataEntry) -> tuple[int, str, str | None]:
    return entry.size, kind_class(entry.kind), entry.type


def _number(name: str) -> tuple[int, str]:
    digits = name.partition(LOCAL_SEPARATOR)[0].rpartition(".")[2]
    return (int(digits) if digits.isdigit() else -1), name
