"""watch/maps.py: after the first look a patch asks only about what was built, and what generations changed."""
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mapmaker import fn, image, objmap

from hotreload_tool import hotpatch
from hotreload_tool.errors import Refused
from hotreload_tool.objectmap import ObjectMap
from hotreload_tool.objectmaps import ObjectMaps
from hotreload_tool.request import ImageRequest, LinkRequest, ObjectRequest
from hotreload_tool.watch.maps import Overlaid, ResidentMaps
from indexed import indexed

NAMES = ("a.o", "b.o", "c.o", "d.o")
OLD = {name: objmap(name, fn(f"f_{name}", "1")) for name in NAMES}
NEW = {name: objmap(name, fn(f"f_{name}", "2")) for name in NAMES}


class Tree:
    """Objects of an image, and which of their files are read."""

    def __init__(self, folder: Path, names: tuple[str, ...] = NAMES) -> None:
        self.live = indexed(folder, image(*OLD.values()))
        assert self.live.index is not None
        self.linked = self.live.index.map_digest
        self.present: dict[str, ObjectMap | None] = dict(OLD)
        self.read: list[str] = []
        self.objects = [ObjectRequest(name, f"/{name}", False) for name in names]
        self.request = ImageRequest("prog", "/prog", "program", self.objects, LinkRequest([], [], [], [], [], [], []))
        store: Any = SimpleNamespace(root=folder)
        self.maps = ResidentMaps(store, self.objects, lambda path: self.present[path[1:]])
        self.maps._digest = self._digest     # type: ignore[method-assign]

    def _digest(self, path: str) -> bytes:
        self.read.append(path[1:])
        found = self.present[path[1:]]
        if found is None:
            return b""
        known = self.linked(path[1:])
        return known if known is not None and found == OLD[path[1:]] else b"another"

    def build(self, name: str, made: ObjectMap | None) -> None:
        self.present[name] = made
        self.maps.forget(f"/{name}")

    def news(self, maps: ObjectMaps | None = None) -> dict[str, ObjectMap | None]:
        """What a patch looks at; the files that it read are in `read`."""
        self.read.clear()
        return hotpatch._news(self.live, self.request, maps or self.maps)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_after_the_first_look_only_what_was_built_is_looked_at(tree: Tree) -> None:
    assert tree.news() == {} and sorted(tree.read) == list(NAMES)
    assert tree.news() == {} and tree.read == []
    tree.build("c.o", NEW["c.o"])
    tree.build("b.o", NEW["b.o"])
    assert tree.news() == {"b.o": NEW["b.o"], "c.o": NEW["c.o"]}          # in the order of the link
    assert sorted(tree.read) == ["b.o", "c.o"]
    assert [*tree.news()] == ["b.o", "c.o"] and tree.read == []           # until they live: an edit may have been refused


def test_what_is_again_as_it_was_is_not_suspected_for_ever(tree: Tree) -> None:
    tree.news()
    tree.build("b.o", NEW["b.o"])
    assert [*tree.news()] == ["b.o"]
    tree.maps.settle(tree.live)
    assert [*tree.maps.suspects(tree.live)] == ["b.o"]
    tree.build("b.o", OLD["b.o"])
    assert tree.news() == {}
    tree.maps.settle(tree.live)
    assert [*tree.maps.suspects(tree.live)] == []


def test_what_a_generation_changed_is_looked_at_and_what_was_withdrawn_is_not_lost(tree: Tree) -> None:
    tree.news()
    tree.build("d.o", NEW["d.o"])
    tree.live.maps["d.o"] = NEW["d.o"]                    # it went live
    tree.build("d.o", OLD["d.o"])                         # and the edit was taken back
    assert tree.news() == {"d.o": OLD["d.o"]}             # as it was linked is not as it lives
    tree.maps.settle(tree.live)
    assert tree.news() == {"d.o": OLD["d.o"]}


def test_objects_that_left_and_objects_that_are_not_instrumented_any_more(tmp_path: Path) -> None:
    tree = Tree(tmp_path, NAMES[:3])
    assert tree.news() == tree.news() == {"d.o": None}
    tree.build("a.o", None)
    for _ in range(2):
        with pytest.raises(Refused, match="instrumented in the running program and is not any more"):
            tree.news()


def test_an_image_that_is_not_indexed_is_looked_at_as_a_whole(tree: Tree) -> None:
    tree.live.index = None
    assert [*tree.news()] == [*tree.news()] == list(NAMES)


def test_what_goes_ahead_of_the_build_lies_over_it(tree: Tree) -> None:
    tree.news()
    assert tree.news(Overlaid(tree.maps, {"b.o": NEW["b.o"]})) == {"b.o": NEW["b.o"]} and tree.read == []
    assert tree.news() == {}
