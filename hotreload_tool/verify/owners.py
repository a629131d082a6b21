"""Whose a static local is: its number says nothing, but which functions refer to it does.

Two of one name that are exchanged in all code still correspond one to one. But then the process had other functions refer to
each of them before the last generation.
"""
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import NamedTuple

from ..names import BODY_SUFFIX, LOCAL_SEPARATOR
from ..payload import NEW_SUFFIX
from .instructions import decode, references
from .linked import OBJECT, Linked
from .side import Side, functions_of, named_data
from .updates import is_numbered, without_number

_PARTS = (".cold", ".part.", ".constprop.", ".isra.")         # GCC's, of one function
_LOWEST = 0x1000           # of what is an address


class _Use(NamedTuple):
    target: int
    code: int                  # the function that refers to it
    name: str                  # of the function, without what tells its parts apart
    place: int                 # in the code


class _Static(NamedTuple):
    address: int
    size: int
    number: int
    uses: frozenset[tuple[str, int]]        # function, and where in it the first reference is

    @property
    def users(self) -> set[str]:
        return {name for name, _ in self.uses}


class Owners:
    def __init__(self, new: Side, before: Side) -> None:
        """`before`: the process without the last generation."""
        self.new, self.before = _Statics(new), _Statics(before)

    def agree(self, new: int, old: int) -> bool:
        """Whether nothing speaks against that the static local of the new image that begins at `new` is the one at `old`."""
        if self.new.is_alone(new) and self.before.is_alone(old):
            return True
        news, olds = self.new.like(new), self.before.like(old)
        mine, theirs = (next((s for s in found if s.address == at), None) for found, at in ((news, new), (olds, old)))
        if mine is None or theirs is None or not theirs.users:
            return True                                        # nothing says whose it was
        if mine.users & theirs.users:
            return _agree_in_order(mine, theirs, news, olds)
        own = [o for o in olds if mine.users & o.users and mine.size == o.size]
        return not any(sum(bool(n.users & o.users) for n in news) == 1 for o in own)


def _agree_in_order(mine: _Static, theirs: _Static, news: list[_Static], olds: list[_Static]) -> bool:
    """Of several that one function has: whether the order of use and the compiler's numbers do not both say otherwise."""
    ours = [s for s in news if s.users == mine.users and s.size == mine.size]
    others = [s for s in olds if s.users == theirs.users and s.size == mine.size]
    if mine.users != theirs.users or len(ours) != len(others) or theirs not in others:
        return True
    by_number = _paired(ours, others, lambda s: s.number)
    by_use = [_paired(ours, others, _use_in(user)) for user in mine.users]
    return any(pairs != by_number for pairs in by_use) or by_number[mine] == theirs


def _use_in(user: str) -> Callable[[_Static], int]:
    return lambda static: dict(static.uses)[user]


def _paired(ours: list[_Static], others: list[_Static], key: Callable[[_Static], int]) -> dict[_Static, _Static]:
    return dict(zip(sorted(ours, key=key), sorted(others, key=key)))


class _Statics:
    """Those of one side."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self._known: dict[int, _Static] = {}

    def is_alone(self, address: int) -> bool:
        return len(self._alike(address)) < 2

    def like(self, address: int) -> list[_Static]:
        """All that the source calls as the one at `address`, in the same object file."""
        return [self._static(at) for at in sorted(self._alike(address))]

    def _alike(self, address: int) -> set[int]:
        stems = {without_number(n) for n in self._names(address) if is_numbered(n)}
        return set().union(*(self._by_stem.get(stem, set()) for stem in stems))

    @cached_property
    def _by_stem(self) -> dict[tuple[str, str], set[int]]:
        found: dict[tuple[str, str], set[int]] = {}
        for file in self.side.space.files:
            for address, known in named_data(file):
                if self.side.space.file_at(address) is file:
                    for name in filter(is_numbered, known):
                        found.setdefault(without_number(name), set()).add(address)
        return found

    def _names(self, address: int) -> set[str]:
        return {s.name for s in self.side.space.symbols_at(address) if s.type == OBJECT}

    def _static(self, address: int) -> _Static:
        if address not in self._known:
            symbols = [s for s in self.side.space.symbols_at(address) if s.type == OBJECT]
            number = min(int(n.partition(LOCAL_SEPARATOR)[0].rpartition(".")[2]) for n in self._names(address) if is_numbered(n))
            size = max(s.size for s in symbols)
            self._known[address] = _Static(address, size, number, frozenset(self._uses(address, size).items()))
        return self._known[address]

    def _uses(self, address: int, size: int) -> dict[str, int]:
        found: dict[str, int] = {}
        for file in self.side.space.files:
            known = _uses(file)
            for use in known[bisect_left(known, (address,)):bisect_left(known, (address + size,))]:
                if self._is_current(file, use):
                    found[use.name] = min(use.place, found.get(use.name, use.place))
        return found

    def _is_current(self, file: Linked, use: _Use) -> bool:
        """Whether it is not code that a generation replaced."""
        if use.name not in self.side.entries:
            return True
        body = self.side.body(use.name)
        return use.code == body or use.code not in self.side.bodies and self.side.space.file_at(body) is file


@lru_cache(maxsize=8)
def _uses(file: Linked) -> list[_Use]:
    """Every reference of a file's code to data, by what it refers to."""
    found = set()
    for symbol in functions_of(file)[1]:
        for i in decode(file.read(symbol.value, symbol.size), symbol.value):
            found |= {_Use(target, symbol.value, _base(symbol.name), i.at - symbol.value) for target in references(i)
                      if target >= _LOWEST and not file.executable(target)}
    return sorted(found)


def _base(name: str) -> str:
    name = name.partition("@")[0].removesuffix(BODY_SUFFIX).removesuffix(NEW_SUFFIX)
    for part in _PARTS:
        base, found, rest = name.partition(part)
        name = base + (LOCAL_SEPARATOR + rest.partition(LOCAL_SEPARATOR)[2] if LOCAL_SEPARATOR in rest else "") if found else name
    return name
