"""A store that remembers: what a resident session has read of baselines and chains, as long as the files are the same.

Files of a store are written once and appear whole under their names. So a file is known by its inode, size and time of
change; whatever another tool adds, takes back or prunes is noticed when the chain is listed, which it is for every patch.
"""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .. import bundle, live
from ..baseline import Store, names_in
from ..elf import Elf
from ..errors import Damaged
from ..live import ImageFacts, LiveState
from ..stamp import Stamp, stamp

_T = TypeVar("_T")
_GENERATIONS = 64        # parsed payloads that are kept


class Memory(Store):
    """For one thread at a time."""

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        self._facts: dict[str, tuple[Stamp, ImageFacts]] = {}
        self._states: dict[str, tuple[tuple[Stamp | None, ...], LiveState]] = {}      # what the state comes from, and the state
        self._chains: dict[str, tuple[set[str], list[Path]]] = {}        # all names in the directory, and the bundles
        self._files: dict[Hashable, Elf] = {}
        self._derived: dict[tuple[int, Any], Any] = {}                   # by the file's id and what it was made by
        self._programs: tuple[Hashable, dict[str, list[str]]] = ((), {})

    def load(self, build_id: str) -> ImageFacts:
        found = stamp(self._image(build_id))
        known = self._facts.get(build_id)
        if found is None or known is None or known[0] != found:
            self._forget(build_id)
            facts = super().load(build_id)
            found = stamp(self._image(build_id))
            if found is None:
                return facts
            known = self._facts[build_id] = found, facts
        return known[1]

    def programs(self) -> dict[str, list[str]]:
        folders = [self.root / "programs", self.root / "baselines"]
        listed = (*map(stamp, folders), *map(stamp, sorted(folders[0].glob("*.json"))))
        if self._programs[0] != listed:
            self._programs = listed, super().programs()
        return self._programs[1]

    def append(self, build_id: str, made: bundle.Bundle) -> Path:
        path = super().append(build_id, made)
        found = stamp(path)
        if found is not None:        # as a reader would find it: JSON knows no tuples
            self._bundles[path] = found, dataclasses.replace(made, manifest=json.loads(bundle.canonical_json(made.manifest)))
        return path

    def chain(self, build_id: str) -> list[Path]:
        names = set(names_in(self._chain(build_id)))
        known = self._chains.get(build_id)
        if known is None or known[0] != names:
            known = self._chains[build_id] = names, super().chain(build_id)
        return known[1]

    def live_state(self, build_id: str, generation: int | None = None) -> LiveState:
        """As the store's, but what it refers to may change with the next call."""
        if generation is not None:
            return super().live_state(build_id, generation)
        chain = self.chain(build_id)
        origin, state = self._states.pop(build_id, ((), None))
        if state is None or self._origin(build_id, chain[:state.generation]) != origin:
            state = self.as_built(build_id)
        for path in chain[state.generation:]:
            patch = self.bundle(path).image(build_id)
            if patch is None:
                raise Damaged(path, "", f"brings nothing to build-id {build_id}; remove it from the chain")
            live.overlay(state, patch[0], patch[2])
        self._states[build_id] = self._origin(build_id, chain), state
        return dataclasses.replace(state)

    def _origin(self, build_id: str, chain: Sequence[Path]) -> tuple[Stamp | None, ...]:
        """Of what a state comes from. The last bundle speaks for all of a chain: only the last is ever taken back."""
        return tuple(stamp(path) for path in (self._image(build_id), self._index(build_id), *chain[-1:]))

    def linked(self, live: LiveState, generation: int = 0) -> Elf:
        made = self.bundle(self.chain(live.build_id)[generation - 1]).image(live.build_id) if generation else None
        key = (live.build_id, made[0]["payload"]["sha256"] if made else "")
        if key not in self._files:
            if len(self._files) > _GENERATIONS:
                self._derived.clear()
                self._files.clear()
            self._files[key] = super().linked(live, generation)
        return self._files[key]

    def derived(self, file: Elf, make: Callable[[Elf], _T]) -> _T:
        if not any(file is known for known in self._files.values()):
            return make(file)
        key = (id(file), make)          # the file stays as long as what is made of it: `_files`
        if key not in self._derived:
            self._derived[key] = make(file)
        result: _T = self._derived[key]
        return result

    def _forget(self, build_id: str) -> None:
        self._facts.pop(build_id, None)
        self._states.pop(build_id, None)
