"""Whether two objects of one source are the same to whoever patches with them."""
from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from ..objectmap import ObjectMap

_MOST_NAMED = 3


def differences(quick: ObjectMap, plain: ObjectMap) -> list[str]:
    """What is not the same, for people; empty where both are equal. `quick` was made with a prefix.

    clang tells no debugger of names that a compiled header brings in by `using` alone: types that nothing else of the unit
    needs may be missing from `quick`, and no code of it depends on their layout.
    """
    found = [*_entries("function", quick.functions, plain.functions, lambda f: (f.name, f.comdat)),
             *_entries("object", quick.data, plain.data, lambda d: (d.name, d.comdat)),
             *_entries("section", quick.special, plain.special, lambda s: (s.section, s.comdat))]
    for field in ("source", "machine", "stubs", "typed"):
        if getattr(quick, field) != getattr(plain, field):
            found.append(f"{field}: {getattr(quick, field)} for {getattr(plain, field)}")
    for field in ("compiler", "imports"):
        if sorted(getattr(quick, field)) != sorted(getattr(plain, field)):
            found.append(f"{field} differ")
    may_lack = any("clang" in text for text in plain.compiler)
    for field in ("types", "layouts", "virtuals"):
        mine, theirs = getattr(quick, field).items(), getattr(plain, field).items()
        if not mine <= theirs or (mine != theirs and not may_lack):
            found.append(f"{field}: {_named(str(value) for _, value in mine ^ theirs)}")
    return found


def _entries(what: str, quick: Iterable[Any], plain: Iterable[Any], key: Callable[[Any], Hashable]) -> list[str]:
    mine, theirs = ({key(entry): vars(entry) for entry in entries} for entries in (quick, plain))
    differ = [str(k[0] if isinstance(k, tuple) else k) for k in {**theirs, **mine} if mine.get(k) != theirs.get(k)]
    return [f"{what} {_named(differ)}"] if differ else []


def _named(names: Iterable[str]) -> str:
    every = sorted(names)
    more = len(every) - _MOST_NAMED
    return ", ".join(every[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
