"""Imports of a payload: whether the image's libraries define them, in the version the payload asks for."""
from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from .linked import DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_SONAME, DT_STRTAB, DT_SYMTAB, UNDEFINED, Linked, Unreadable
from .tables import R_64, R_GLOB_DAT, R_JUMP_SLOT, Payload

_DT_VERSYM, _DT_VERDEF, _DT_VERDEFNUM = 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD
_MOST_LIBRARIES = 512
_DIRECTORIES = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib",
                "/usr/local/lib")
_STB_WEAK = 2


def problems(payload: Payload, image: Linked, image_path: Path) -> tuple[list[str], str]:
    """(imports that nothing defines, why something could not be checked)."""
    wanted = list(_wanted(payload.file))
    if not wanted:
        return [], ""
    libraries, missing = closure(image, image_path)
    defined = [exports(image), *(exports(lib) for lib in libraries)]
    found = []
    for name, version in wanted:
        if not any(_has(table, name, version) for table in defined):
            found.append(f"{name}{'@' + version if version else ''} is in neither the image nor its libraries")
    if found and missing:
        return [], f"libraries of the image were not found here: {', '.join(missing)}; {found[0]}"
    return found, ""


def _wanted(file: Linked) -> Iterator[tuple[str, str]]:
    seen = set()
    for r in file.relocations:
        if r.type in (R_64, R_GLOB_DAT, R_JUMP_SLOT) and r.symbol not in seen:
            seen.add(r.symbol)
            made = file.dynamic_symbol(r.symbol)
            if made.symbol.section == UNDEFINED and made.symbol.binding != _STB_WEAK:
                yield made.symbol.name, made.version


def _has(table: dict[str, set[str]], name: str, version: str) -> bool:
    """Where a library gives a version, the linker writes it: without one the import could be bound to another."""
    versions = table.get(name)
    return versions is not None and (version in versions or versions == {""})


@functools.lru_cache(maxsize=16)
def closure(image: Linked, image_path: Path) -> tuple[list[Linked], list[str]]:
    """The libraries that loading the image loads, and the names of those that are not here."""
    found: dict[str, Linked] = {}
    missing: list[str] = []
    waiting: list[tuple[str, list[str]]] = [(name, _run_path(image, image_path)) for name in _needed(image)]
    while waiting and len(found) < _MOST_LIBRARIES:
        name, places = waiting.pop(0)
        if name in found or name in missing:
            continue
        path = _find(name, places)
        if path is None:
            missing.append(name)
            continue
        found[name] = library = _library(str(path))
        waiting += [(n, [*_run_path(library, path), *places]) for n in _needed(library)]
    return list(found.values()), missing


@functools.lru_cache(maxsize=64)
def _library(path: str) -> Linked:
    return Linked(Path(path).read_bytes(), path)


def _needed(file: Linked) -> list[str]:
    return [file.dynamic_string(value) for tag, value in file.dynamic if tag == DT_NEEDED]


def soname(file: Linked) -> str:
    value = file.tag(DT_SONAME)
    return file.dynamic_string(value) if value else ""


def _run_path(file: Linked, path: Path) -> list[str]:
    origin = str(path.resolve().parent)
    words = [w for tag, value in file.dynamic if tag in (DT_RPATH, DT_RUNPATH) for w in file.dynamic_string(value).split(":")]
    return [w.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for w in words if w]


def _find(name: str, places: list[str]) -> Path | None:
    if "/" in name:
        return Path(name) if os.path.exists(name) else None
    own = [p for p in os.environ.get("LD_LIBRARY_PATH", "").split(":") if p]
    for place in [*places, *own, *_configured(), *_DIRECTORIES]:
        if os.path.isfile(os.path.join(place, name)):
            return Path(place, name)
    return None


@functools.cache
def _configured() -> list[str]:
    """The directories that /etc/ld.so.conf names (ldconfig(8)); includes are one level deep there."""
    found: list[str] = []
    files = [Path("/etc/ld.so.conf"), *sorted(Path("/etc/ld.so.conf.d").glob("*.conf"))]
    for file in files:
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue
        found += [line.strip() for line in lines if line.strip().startswith("/")]
    return found


@functools.lru_cache(maxsize=64)
def _exports(file: Linked) -> dict[str, set[str]]:
    section = file.section_of(file.tag(DT_SYMTAB))
    if section is None:
        return {}
    raw = file.read(section.address, section.size // 24 * 24)
    strings_at = file.tag(DT_STRTAB)
    strings = file.read(strings_at, file.tag(10))
    versions = _version_names(file, strings)
    found: dict[str, set[str]] = {}
    for index, (name, info, _, shndx, _, _) in enumerate(struct.iter_unpack("<IBBHQQ", raw)):
        if shndx != UNDEFINED and info >> 4:
            end = strings.find(b"\0", name)
            number = int.from_bytes(file.read(file.tag(_DT_VERSYM) + 2 * index, 2), "little") if versions else 1
            text = strings[name:end].decode("utf-8", "surrogateescape")
            found.setdefault(text, set()).add(versions.get(number & 0x7FFF, ""))
    return found


def exports(file: Linked) -> dict[str, set[str]]:
    """Dynamic symbols that a file defines -> their versions ("" where it has none). Raises Unreadable."""
    return _exports(file)


def _version_names(file: Linked, strings: bytes) -> dict[int, str]:
    """Number -> name of the versions a library defines (LSB, "Symbol Versioning")."""
    found: dict[int, str] = {}
    at = file.tag(_DT_VERDEF)
    for _ in range(min(file.tag(_DT_VERDEFNUM), 1 << 16)):
        _, flags, number, count, _, aux, following = struct.unpack("<HHHHIII", file.read(at, 20))
        if not count:
            raise Unreadable(f"{file.where}: a version without a name")
        name = int.from_bytes(file.read(at + aux, 4), "little")
        if not flags & 1:                # 1: VER_FLG_BASE, the name of the file itself
            found[number & 0x7FFF] = strings[name:strings.find(b"\0", name)].decode("utf-8", "surrogateescape")
        at += following
        if not following:
            break
    return found
