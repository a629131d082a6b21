"""The maps of an image's objects in a resident session: after the first look, the work of a patch is that of what was built.

Nobody else builds in the tree while a session watches it (it starts again if somebody does). So an object that was seen to be as
it lives stays so until it is built again, or a generation changes what lives of it.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..layered import Layered
from ..live import LiveState
from ..objectmap import ObjectMap
from ..objectmaps import ObjectMaps
from ..request import ObjectRequest
from .memory import Memory

Carried = Callable[[str], "ObjectMap | None"]


class ResidentMaps(ObjectMaps):
    """Of one image. `carried`: gives the map that the file at a path carries, or what is known of it."""

    def __init__(self, store: Memory, objects: Sequence[ObjectRequest], carried: Carried) -> None:
        super().__init__(store, objects)
        self._order = {o.name: at for at, o in enumerate(objects)}
        self._names = {o.path: o.name for o in objects}
        self._carried = carried
        self._suspects: dict[str, set[str]] = {}         # build-id -> names, without those that generations changed

    def map(self, name: str) -> ObjectMap | None:
        return self._carried(self._paths[name])

    def forget(self, path: str) -> None:
        """The file at `path` was made anew; it may be no object of this image."""
        name = self._names.get(path)
        if name is not None:
            self._digests.pop(name, None)
            for found in self._suspects.values():
                found.add(name)

    def suspects(self, live: LiveState) -> Iterable[str]:
        if live.index is None or not isinstance(live.maps, Layered):
            return super().suspects(live)
        found = self._suspects.get(live.build_id)
        if found is None:
            found = self._suspects[live.build_id] = {n for n in super().suspects(live) if not self._is_as_it_lives(live, n)}
        return sorted({*found, *live.maps.later()}, key=lambda name: self._order.get(name, len(self._order)))

    def settle(self, live: LiveState) -> None:
        """After a patch, while nobody waits: look once more at what was suspected."""
        found = self._suspects.get(live.build_id)
        if found is not None:
            found -= {name for name in found if self._is_as_it_lives(live, name)}

    def _is_as_it_lives(self, live: LiveState, name: str) -> bool:
        """One that is not instrumented does not live either."""
        digest = self.digest(name) if name in self._paths else None
        return live.unchanged(name, digest) if digest else digest is not None and name not in live.maps


class Overlaid(ObjectMaps):
    """`below`, with maps by name that are the session's own, and not the build's."""

    def __init__(self, below: ObjectMaps, made: Mapping[str, ObjectMap]) -> None:
        self._below, self._made = below, made

    def digest(self, name: str) -> bytes:
        return b"ahead" if name in self._made else self._below.digest(name)

    def map(self, name: str) -> ObjectMap | None:
        return self._made[name] if name in self._made else self._below.map(name)

    def suspects(self, live: LiveState) -> Iterable[str]:
        return dict.fromkeys([*self._below.suspects(live), *self._made])

    def remember(self) -> None:
        pass
