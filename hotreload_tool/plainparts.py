"""What of an image is not instrumented: objects on its link line and members of its static libraries.

A change to one of these cannot be patched and must not be overlooked, so their digests are kept with the image.
"""
from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from . import archive, instrument, names
from .errors import Refusal, Refused


def digests(objects: Iterable[str], archives: Iterable[str], name: Callable[[str], str]) -> dict[str, str]:
    """Object name -> digest, of the ELF objects without a map. `name`: path -> path relative to the top directory."""
    found = {}
    for path in objects:
        if _is_object(Path(path)) and instrument.carried_map(path) is None:
            found[names.object_name(name(path))] = instrument.plain_digest(path)
    for path in dict.fromkeys(archives):
        found.update(_of_archive(path, name(path)))
    return found


def _is_object(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(18)
    return head[:4] == b"\x7fELF" and head[16:18] == b"\x01\0"      # ET_REL (System V gABI, chapter 4)


def _of_archive(path: str, called: str) -> dict[str, str]:
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="hotreload-") as folder:
        scratch = Path(folder, "member.o")
        for member in archive.members(path):
            if names.MAP_SECTION.encode() not in member.data:
                scratch.write_bytes(member.data)
                key = names.object_name(f"{called}({member.name})")
                found[key if key not in found else f"{key}#{len(found)}"] = instrument.plain_digest(scratch)
    return found


def unknown() -> str:
    """The digest of what could not be seen: equal to no other."""
    return os.urandom(16).hex()


def check(known: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raises Refused for each object that was left uninstrumented and is not what it was. Objects that only one of them
    has count where they were there before: what refers to a new one is judged by the link."""
    changed = [name for name, digest in known.items() if name in now and now[name] != digest]
    if changed:
        raise Refused([Refusal("excluded", name, "", "it changed, and it is left uninstrumented", "restart the program to get "
                               "this change; take the source out of HOTRELOAD_EXCLUDE to patch it then") for name in changed])
