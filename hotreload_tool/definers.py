"""Who defines a name, without going through all of them: an inline function of a header may be in every object.

These collections are in link order, are read as they are asked for, and compare like tuples of definitions.
"""
from __future__ import annotations

import abc
import heapq
from collections.abc import Collection, Iterable, Iterator
from operator import itemgetter

from .difference import Definition, is_strong

Placed = tuple[int, Definition]          # with the position of its object in link order


class Definers(Collection[Definition]):
    weak: bool                           # none of them is strong, so that the first prevails

    @abc.abstractmethod
    def placed(self) -> Iterator[Placed]:
        """In link order."""

    def __iter__(self) -> Iterator[Definition]:
        return (definition for _, definition in self.placed())

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, wanted: object) -> bool:
        return any(d == wanted for d in self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Definers | tuple) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


class Redefined(Definers):
    """`base` without what the objects `without` had, and `news` in their places."""

    def __init__(self, base: Definers, without: frozenset[str], news: Iterable[Placed]) -> None:
        self._base, self._without, added = base, without, list(news)
        if isinstance(base, Redefined):          # one layer, however many generations there are
            self._base, self._without = base._base, base._without | without
            added = [*(n for n in base._news if n[1].object not in without), *added]
        self._news: list[Placed] = sorted(added, key=itemgetter(0))
        self.weak = base.weak and not any(is_strong(d) for _, d in self._news)

    def placed(self) -> Iterator[Placed]:
        kept = (one for one in self._base.placed() if one[1].object not in self._without)
        return heapq.merge(kept, self._news, key=itemgetter(0))
