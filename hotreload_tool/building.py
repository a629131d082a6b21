"""What becomes of an object just compiled and of an image just linked, whoever drives the build.

The SCons tool calls these in its actions, `hotpatch cc` behind the compiler. Imports nothing heavy before it is needed.
"""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .settings import Settings


class LinkRecord(NamedTuple):
    """How an image was linked: what it takes to make a payload for it later (`link.json` of a baseline)."""
    top: str                     # absolute: object names are paths relative to it
    objects: str                 # absolute: where objects are kept that the build itself would throw away
    driver: Sequence[str]        # the compiler that linked
    directories: Sequence[str]   # absolute, of -L
    archives: Sequence[str]      # absolute: static libraries of the link

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


@contextlib.contextmanager
def whole_or_removed(path: str) -> Iterator[None]:
    """Removes `path` when anything fails: a file left behind would be taken for a good one by the next build."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        raise


def instrument_object(path: str, name: str, chosen: Settings, headers: str | None = None) -> None:
    """Rewrite the object at `path`, which is called `name` (relative to the top directory). Raises Refused, OSError."""
    from . import instrument, names, timings
    options = instrument.Options(pad=chosen.pad, stubs=chosen.stubs, headers=headers)
    with timings.span("instrument"):
        instrument.instrument_file(path, object_name=names.object_name(name), options=options)


def file_image(directory: str, path: str, program: str, plain: Mapping[str, str], link: LinkRecord | None) -> str | None:
    """Keep a copy of the image at `path`, linked as `program`; returns its build-id.

    `plain`: what its uninstrumented objects are (`plain_objects`). An image without any instrumented object cannot be
    patched, so it is not kept: None. Raises Refused, Damaged, OSError.
    """
    from . import baseline, errors
    store = baseline.Store(directory)
    try:
        build_id = store.file_image(path, program, plain)     # in one step: without them changes would be overlooked
    except errors.Refused as e:
        if {refusal.code for refusal in e.refusals} != {"not-instrumented"}:
            raise
        return None
    if link is not None:
        store.note_link(build_id, link.to_json())
    return build_id


def plain_objects(objects: Mapping[str, str]) -> dict[str, str]:
    """Digests of uninstrumented objects, by name. `objects`: name relative to the top directory -> path."""
    from . import instrument, names
    return {names.object_name(name): instrument.plain_digest(path) for name, path in objects.items()}


def headers_digest(headers: Mapping[str, str]) -> str:
    """Of the headers that an object was compiled with: path -> digest of the content."""
    import hashlib
    text = "".join(f"{path}\0{signature}\n" for path, signature in sorted(headers.items()))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def digest_of(*texts: str) -> str:
    import hashlib
    return hashlib.blake2b("\0".join(texts).encode(errors="surrogateescape"), digest_size=16).hexdigest()
