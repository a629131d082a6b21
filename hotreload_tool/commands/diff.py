"""`hotpatch diff OLD NEW`: what changed between two objects, instrumented or not, or two instrumented images."""
from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import names, report
from ..errors import Damaged, HotreloadError
from . import UsageError, readable_file

if TYPE_CHECKING:
    from ..objectmap import ObjectMap

NAME = "diff"
HELP = "compare two objects or two images, by function and by variable"


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", type=readable_file, metavar="OLD")
    parser.add_argument("new", type=readable_file, metavar="NEW")


def run(args: argparse.Namespace) -> report.Result:
    from .. import difference
    old, new = _read(args.old), _read(args.new)
    if old.is_object != new.is_object:
        raise UsageError(f"{args.old} and {args.new}: one is an object, the other a linked image; give two of a kind")
    if not old.is_object:
        return report.differences(difference.summary(difference.compare_objects(_maps(old), _maps(new))))
    was, now = _object_maps(old, new)
    result = report.differences(difference.summary(difference.compare(was, now)))
    if was.object != now.object:
        result.problems.append(report.Line(
            f"note: the objects were instrumented as {was.object} and {now.object}; whatever refers to file-local "
            "names counts as changed between the two", "yellow"))
    return result


@dataclass
class _File:
    path: Path
    data: bytes
    is_object: bool
    maps: list[ObjectMap]     # those it carries


def _read(path: Path) -> _File:
    from .. import elf, objectmap
    data = path.read_bytes()
    try:
        parsed = elf.parse(data, str(path))
        maps = [m for s in parsed.sections if s.name == names.MAP_SECTION for m in objectmap.unpack_all(s.data)]
    except objectmap.MapError as e:
        raise Damaged(path, names.MAP_SECTION, str(e)) from e
    except elf.ElfError as e:
        raise Damaged(path, "", str(e).removeprefix(f"{path}: ")) from e
    return _File(path, data, parsed.type == elf.ET_REL, maps)


def _maps(image: _File) -> list[ObjectMap]:
    if not image.maps:
        raise HotreloadError(f"{image.path}: the image carries no object map, so its functions can't be told apart; "
                             "build it with the hotreload tool, or compare its objects")
    return image.maps


def _object_maps(old: _File, new: _File) -> tuple[ObjectMap, ObjectMap]:
    """The maps they carry, or else computed under one object name: file-local names end in it."""
    from .. import instrument
    carried = [*new.maps[:1], *old.maps[:1]]
    name = carried[0].object if carried else names.object_name(new.path.name)
    was, now = (f.maps[0] if f.maps else instrument.instrument(f.data, name, where=str(f.path))[1] for f in (old, new))
    return was, now
