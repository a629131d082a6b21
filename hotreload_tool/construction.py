"""Objects at namespace scope that code initialises (in C++: "dynamic initialisation"), and which of that code may run in a
process that runs already.

Compilers put the code of all such objects of a unit into one function, which `.init_array` names (GCC, clang:
`_GLOBAL__sub_I_…`), one for each priority. It runs again only as a whole, so it may run only if nothing that it
initialises lives. Objects with a guard of their own (`_ZGV…`: inline variables, static members of templates) are
initialised once however often the code runs; clang gives each of them a function of its own, in the variable's COMDAT
group. (Itanium C++ ABI §2.8, §3.3.4; the names are the compilers' own.)
"""
from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from .difference import kind_class
from .objectmap import DataEntry, FunctionEntry, ObjectMap, SpecialEntry

SECTION = ".init_array"
_FUNCTION = re.compile(r"_GLOBAL__(?:sub_)?I[._](?:(?P<priority>\d{5,6})_)?")
_GUARD = "_ZGV"                            # Itanium C++ ABI §5.1.4.4
_NEVER = (_GUARD, "_ZZ", "DW.ref.")        # guards, variables of functions (§5.1.3), pointers for exception tables
# What <iostream> puts into every unit that includes it. Its constructor and destructor only count ([ios.init]).
_COUNTED = "_ZStL8__ioinit"
_FOR_COUNTED = frozenset({_COUNTED, "_ZNSt8ios_base4InitC1Ev", "_ZNSt8ios_base4InitD1Ev", "__cxa_atexit", "__dso_handle"})

# What a new object's name is in the process: nothing, a variable that lives, or one that had left the source and is back.
Known = Callable[[str], Literal["new", "living", "back"]]


class Initialiser(NamedTuple):
    """Code that runs once, before the patch goes in: a function, or what a COMDAT group has for its variable."""
    object: str
    function: str | None
    group: str | None = None


@dataclass
class Verdict:
    """What is to be done about the initialisation code of one unit."""
    run: list[Initialiser] = field(default_factory=list)
    objects: list[DataEntry] = field(default_factory=list)               # that `run` makes
    refs: list[str] = field(default_factory=list)                        # what `run` refers to
    refusals: list[tuple[str, str]] = field(default_factory=list)        # (name, reason)
    notes: list[str] = field(default_factory=list)


def is_initialiser(symbol: str) -> bool:
    """Whether a function initialises variables at the start of the program, by what compilers call it."""
    return _FUNCTION.match(symbol) is not None


def constructors(m: ObjectMap | None, section: str) -> list[str] | None:
    """The functions in `section` that the program itself wants called at start; None if it is not known what is there."""
    if not section.startswith(SECTION):
        return None
    entries = [s for s in (m.special if m else []) if s.section == section and s.comdat is None]
    if any(not s.refs for s in entries):
        return None
    return [ref for s in entries for ref in s.refs if not is_initialiser(ref)]


def judge(old: ObjectMap | None, new: ObjectMap, known: Known, done: Collection[str] = (),
          noise: Collection[str] = ()) -> Verdict:
    """What becomes of the initialisation code of a unit. `done`: COMDAT groups whose code another unit brings; `noise`:
    functions that differ in nothing that matters."""
    verdict = Verdict()
    before, after = _functions(old), {p: f for p, f in _functions(new).items() if f.name not in noise}
    for priority, function in after.items():
        _judge_function(verdict, _Function(old, before.get(priority)), _Function(new, function), known)
    for priority in before.keys() - _functions(new).keys():
        verdict.notes.append(_stay([d.symbol for d in _Function(old, before[priority]).touched]))
    _judge_groups(verdict, old, new, known, done)
    return verdict


# ---- a function for all objects of the unit ----------------------------------------------------------------------


def _functions(m: ObjectMap | None) -> dict[str, FunctionEntry]:
    """Priority -> the unit's function. It is named after whatever public name comes first, so the name tells nothing."""
    if m is None:
        return {}
    named = {f.name: f for f in m.functions}
    found = {}
    for ref in (r for s in m.special if s.section.startswith(SECTION) and s.comdat is None for r in s.refs):
        match = _FUNCTION.match(ref)
        if match and ref in named:
            found[match["priority"] or ""] = named[ref]
    return found


class _Function:
    """The unit's function in one version, and the variables of the unit that it refers to: all that it may initialise are
    among them."""

    def __init__(self, m: ObjectMap | None, entry: FunctionEntry | None) -> None:
        self.object, self.entry = m.object if m else "", entry
        known = {d.name: d for d in m.data} if m else {}
        found = [known[ref] for ref in (entry.refs if entry else ()) if ref in known]
        self.touched = [d for d in found if kind_class(d.kind) == "writable" and not d.symbol.startswith(_NEVER)
                        and d.symbol != _COUNTED]

    @property
    def does_nothing_twice(self) -> bool:
        """Whether it does not exist, or what it did may be done again."""
        return self.entry is None or _FOR_COUNTED.issuperset(ref.partition("~")[0] for ref in self.entry.refs)


def _judge_function(verdict: Verdict, before: _Function, after: _Function, known: Known) -> None:
    was, entry = before.entry, after.entry
    assert entry is not None
    if was is not None and was.digest == entry.digest:
        return
    unguarded = [d for d in after.touched if not _is_guarded(d, entry, known)]
    fresh = [d for d in after.touched if known(d.name) == "new"]
    living = [d for d in unguarded if known(d.name) == "living"]
    back = [d for d in unguarded if known(d.name) == "back"]
    gone, come = _symbols(before) - _symbols(after), _symbols(after) - _symbols(before)
    if before.does_nothing_twice and not living and not back:
        verdict.run.append(Initialiser(after.object, entry.name))
        verdict.objects += fresh
        verdict.refs += entry.refs
    elif fresh:
        verdict.refusals.append((entry.name, f"{_list(fresh)} is new, and the compiler made one function that initialises it "
                                 f"together with {_list(living + back) or 'others'}, which would be initialised again"))
    elif before.does_nothing_twice and living:
        verdict.refusals.append((entry.name, f"{_list(living)}, which lives in the process, would be initialised by code"))
    elif come <= {d.symbol for d in back} and (gone or come or before.does_nothing_twice):
        verdict.notes.append(_stay(sorted(gone)))
    else:
        verdict.refusals.append((entry.name, f"what initialises {_list(after.touched) or 'variables'} changed, and has run "
                                 "already"))


def _symbols(function: _Function) -> set[str]:
    return {d.symbol for d in function.touched}


def _is_guarded(variable: DataEntry, function: FunctionEntry, known: Known) -> bool:
    guard = _guard_of(variable.symbol)
    return guard in function.refs and known(guard) != "new"


def _guard_of(symbol: str) -> str:
    return _GUARD + (symbol[2:] if symbol.startswith("_Z") else f"{len(symbol)}{symbol}")


# ---- a function for each variable, in its COMDAT group -------------------------------------------------------------


def _judge_groups(verdict: Verdict, old: ObjectMap | None, new: ObjectMap, known: Known, done: Collection[str]) -> None:
    before, data = _groups(old), {d.symbol: d for d in new.data}
    for group, entry in _groups(new).items():
        variable, guard = data.get(group), _guard_of(group)
        if variable is not None and known(variable.name) != "new":
            changed = before[group].digest != entry.digest if group in before else known(guard) == "new"
            if changed:
                verdict.refusals.append((variable.name, f"what initialises {group} changed, and it lives in the process"))
        elif group not in done and variable is not None and guard in entry.refs:
            verdict.run.append(Initialiser(new.object, None, group))
            verdict.objects.append(variable)
            verdict.refs += entry.refs
        elif group not in done:
            verdict.refusals.append((group, "it is not known what this code initialises"))


def _groups(m: ObjectMap | None) -> Mapping[str, SpecialEntry]:
    return {s.comdat: s for s in (m.special if m else []) if s.section.startswith(SECTION) and s.comdat is not None}


# ---- words -----------------------------------------------------------------------------------------------------------


def _list(variables: Iterable[DataEntry]) -> str:
    return ", ".join(d.symbol for d in variables)


def _stay(gone: Collection[str]) -> str:
    said = f"no longer initialised by code: {', '.join(gone)}; what was made stays, its destructor runs at the end of the program"
    return f"{said if gone else 'initialisation by code changed'}; what lives is not initialised again"
