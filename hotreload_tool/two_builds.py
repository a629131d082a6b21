"""A bundle from two builds of a program: the image that runs, and the one linked from the edited source.

No state is kept: the same images and the same bundles before give the same bundle. What is compared and linked is
what `scons hotpatch` compares and links (`hotpatch.make_generation`); only where it comes from is another.
"""
from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from . import archive, baseline, building, bundle, hotpatch, instrument, names, plainparts
from .baseline import Store
from .errors import HotreloadError, Refused
from .live import ImageFacts
from .objectmap import ObjectMap
from .objectmaps import GivenMaps
from .request import ImageKind, ImageRequest, LinkRequest, ObjectRequest

STATE = ".hotreload"      # the default of HOTRELOAD_DIR


@dataclass(frozen=True)
class Made:
    """What `make` made: `bundle` is None where nothing changed. `plain_known`: whether it is known what of the base is
    uninstrumented, so that a change there would have been seen."""
    bundle: bundle.Bundle | None
    build_id: str
    plain_known: bool


def make(base: Path, new: Path, earlier: Sequence[Path] = (), state: Path | None = None, init: str = "merge") -> Made:
    """The bundle that turns `base` with `earlier` bundles (oldest first) into `new`.

    `state`: the HOTRELOAD_DIR of the builds; without it, it is looked for above each image. Raises Refused, NotForImage,
    Damaged, HotreloadError.
    """
    base_id, new_id = baseline.read_build_id(base), baseline.read_build_id(new)
    known, record = store_of([base, new], base_id, state), store_of([new], new_id, state)
    document = record.link(new_id) if record else None
    if record is None or document is None:
        baseline.read_image(new)       # perhaps it is none that could be patched, and this says why
        raise HotreloadError(f"{new}: it is not known how this image was linked: no {STATE} above it has its build-id "
                             f"{new_id}; give the HOTRELOAD_DIR of its build, or build it with `hotpatch cc`")
    new_facts = record.load(new_id)    # by the copy that was filed: the image may have been stripped since
    with tempfile.TemporaryDirectory(prefix="hotreload-") as scratch:
        image = image_request(new, new_facts, building.LinkRecord(**document), Path(scratch, "objects"), init)
        store = Store(Path(scratch, "store"))
        build_id = store.file_image(_filed(known, base_id) or base, image.name)
        plain = known.plain(build_id) if known else {}
        plainparts.check(plain, record.plain(new_id))
        for path in earlier:
            store.append(build_id, bundle.read(path))
        maps = GivenMaps({m.object: m for m in new_facts.maps})
        made = hotpatch.make_generation(store, build_id, image, maps)
        return Made(bundle.read(made) if made else None, build_id, known is not None)


def _filed(store: Store | None, build_id: str) -> Path | None:
    """The copy that was filed: what runs may have been stripped since."""
    return store.lookup(build_id) if store else None


def store_of(images: Sequence[Path], build_id: str, state: Path | None) -> Store | None:
    """The state of a build that knows `build_id`, looked for above each of `images`; None if there is none."""
    folders = [folder / (state or STATE) for image in images for folder in image.resolve().parents]
    return next((store for store in map(Store, folders) if build_id and store.lookup(build_id) is not None), None)


# ---- the new image as a request --------------------------------------------------------------------------------


def image_request(path: Path, facts: ImageFacts, link: building.LinkRecord, scratch: Path, init: str) -> ImageRequest:
    """`path` with the files of its objects. `scratch`: where members of archives are put. Raises HotreloadError."""
    scratch.mkdir()
    files = dict(_object_files(facts.maps, link, scratch))
    objects = [ObjectRequest(m.object, str(files[m.object]), False) for m in facts.maps]
    kind: ImageKind = "shared" if facts.kind == "shared" else "program"
    request = LinkRequest(driver=list(link.driver), cc=list(link.driver), cxx=list(link.driver), libs=[],
                          libpath=[f"-L{d}" for d in link.directories], flags=[], sources=[])
    return ImageRequest(path.name, str(path.resolve()), kind, objects, request, init)


def _object_files(maps: Sequence[ObjectMap], link: building.LinkRecord, scratch: Path) -> Iterator[tuple[str, Path]]:
    """The file of each object, known by the map that it carries to be what the image was linked from."""
    missing: dict[str, ObjectMap] = {}
    for described in maps:
        found = next((p for p in _places(described.object, link) if _carries(p, described)), None)
        if found:
            yield described.object, found
        else:
            missing[described.object] = described
    yield from _archived(missing, link, scratch)
    if missing:
        name = next(iter(missing))
        raise HotreloadError(f"{name}: there is no object of this name under {link.top} that the image was linked from: it was "
                             "removed or made anew since; build again, and make the bundle before anything else is built")


def _places(name: str, link: building.LinkRecord) -> list[Path]:
    relative = unquote(name, errors="surrogateescape")
    return [Path(link.top, relative), Path(link.objects, relative)]


def _carries(path: Path, described: ObjectMap) -> bool:
    try:
        return instrument.carried_map(path) == described
    except (OSError, Refused):
        return False


def _archived(missing: dict[str, ObjectMap], link: building.LinkRecord, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Those whose object is only in a static library any more; takes them out of `missing`."""
    for path in link.archives if missing else ():
        for number, member in enumerate(archive.members(path)):
            if names.MAP_SECTION.encode() not in member.data:
                continue
            file = scratch / f"{len(missing)}-{number}.o"
            file.write_bytes(member.data)
            described = instrument.carried_map(file)
            if described is not None and missing.get(described.object) == described:
                del missing[described.object]
                yield described.object, file
