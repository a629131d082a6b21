"""A mapping that lies over another one, which may be large, on disk, and is never changed."""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

V = TypeVar("V")
_GONE: Any = object()


class Lookup(Mapping[str, V]):
    """A mapping by functions: `find` gives what a name has, or None; `names` all names, which may cost a lot; `has` says of a
    name whether it has something, for less than `find` costs."""

    def __init__(self, find: Callable[[str], V | None], names: Callable[[], Collection[str]],
                 has: Callable[[str], bool] | None = None) -> None:
        self._find, self._names = find, names
        self._has = has or (lambda name: find(name) is not None)

    def __getitem__(self, name: str) -> V:
        found = self._find(name)
        if found is None:
            raise KeyError(name)
        return found

    def get(self, name: str, default: Any = None) -> Any:
        found = self._find(name)
        return default if found is None else found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._has(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())


class Layered(MutableMapping[str, V]):
    """What was changed since is in `changes`; what was deleted is not there any more."""

    def __init__(self, base: Mapping[str, V], changes: Mapping[str, V] | None = None) -> None:
        self._base = base
        self._changes: dict[str, V] = dict(changes or {})

    def __getitem__(self, name: str) -> V:
        found = self._changes.get(name)
        if found is None:
            return self._base[name]
        if found is _GONE:
            raise KeyError(name)
        return found

    def get(self, name: str, default: Any = None) -> Any:
        found = self._changes.get(name)
        if found is None:
            return self._base.get(name, default)
        return default if found is _GONE else found

    def __contains__(self, name: object) -> bool:
        found = self._changes.get(name)          # type: ignore[call-overload]
        return name in self._base if found is None else found is not _GONE

    def __setitem__(self, name: str, value: V) -> None:
        self._changes[name] = value

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._changes[name] = _GONE

    def __iter__(self) -> Iterator[str]:
        """In the order in which a dict would have them, but for names that were deleted and came back."""
        yield from (name for name in self._base if self._changes.get(name) is not _GONE)
        yield from (name for name, value in self._changes.items() if value is not _GONE and name not in self._base)

    def __len__(self) -> int:
        return len(self._base) + sum((value is not _GONE) - (name in self._base) for name, value in self._changes.items())

    def changed(self, name: str) -> bool:
        """Whether `name` is, or was, something else than in the mapping below."""
        return name in self._changes

    def later(self) -> dict[str, V]:
        """What lies over the mapping below."""
        return {name: value for name, value in self._changes.items() if value is not _GONE}

    def copy(self) -> Layered[V]:
        return Layered(self._base, self._changes)


def later(mapping: Mapping[str, V]) -> Mapping[str, V]:
    """All that may have been added to a mapping since it was read: of a plain dict everything."""
    return mapping.later() if isinstance(mapping, Layered) else mapping
