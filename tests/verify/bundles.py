"""Bundles to verify: made from sources, taken apart, broken in one place, and put together again with right hashes."""
from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from casetools import Builder, Case, Configuration, read_case

from hotreload_tool import abi, hotpatch
from hotreload_tool.baseline import Store
from hotreload_tool.objectmaps import ObjectMaps
from hotreload_tool.verify.linked import DT_STRSZ, DT_STRTAB, DT_SYMTAB, DT_VERSYM, Linked, Segment
from hotreload_tool.verify.tables import Payload

_PHDR = struct.Struct("<IIQQQQQQ")


@dataclass
class Made:
    """An image and the bundles of its versions; `new[i]` is the image linked from the sources of bundle `i`."""
    image: Path
    bundles: list[Path] = field(default_factory=list)
    new: list[Path] = field(default_factory=list)


def make(case: Case, configuration: Configuration, folder: Path, shared: Path) -> Made:
    """Build version 1, then a bundle and a fresh image for each further version. Raises Refused."""
    folder.mkdir(parents=True, exist_ok=True)
    builder = Builder(case, configuration, folder, shared)
    made = Made(folder / "image")
    shutil.move(builder.link(builder.objects(case.first)), made.image)
    store = Store(folder / "hotreload")
    build_id = store.file_image(made.image, "prog")
    for version in case.versions[1:]:
        objects = builder.objects(version)
        request = builder.request(made.image, objects, version.value("Init", configuration, "merge") or "")
        bundle = hotpatch.make_generation(store, build_id, request, ObjectMaps(store, request.objects))
        assert bundle is not None, f"version {version.number} changes nothing"
        made.bundles.append(bundle)
        made.new.append(folder / f"new{version.number}")
        shutil.move(builder.link(objects), made.new[-1])
    return made


def make_beside(case: Case, configuration: Configuration, folder: Path, shared: Path) -> Made:
    """The first two versions as an image and a bundle; of the others the image alone."""
    rest, case.versions = case.versions[2:], case.versions[:2]
    made = make(case, configuration, folder, shared)
    builder = Builder(case, configuration, folder, shared)
    for version in rest:
        made.new.append(folder / f"new{version.number}")
        shutil.move(builder.link(builder.objects(version)), made.new[-1])
    return made


def installed(configuration: str) -> Configuration:
    """Skips the test where its compiler is not there."""
    wanted = Configuration.parse(configuration)
    if shutil.which(wanted.compiler) is None:
        pytest.skip(f"there is no {wanted.compiler}")
    return wanted


def case_of(folder: Path, *versions: str, suffix: str = "c") -> Case:
    """A case of these sources."""
    folder.mkdir(parents=True)
    for number, text in enumerate(versions, 1):
        directives = "//# Expect: x\n" + ("//# Patch: ok\n" if number > 1 else "")
        (folder / f"v{number}.{suffix}").write_text(directives + text)
    return read_case(folder)


# ---- taking one apart -------------------------------------------------------------------------------------------


@dataclass
class Broken:
    """A bundle of one image in pieces. Change what you like; `data()` makes hashes and sizes right again."""
    manifest: dict[str, Any]
    payload: bytearray
    maps: bytes
    extra: Sequence[tuple[str, bytes]] = ()
    keep_hashes: bool = False
    prefix: bytes = b""
    comment: bytes = b""

    @classmethod
    def of(cls, path: Path) -> Broken:
        with zipfile.ZipFile(path) as archive:
            return cls(json.loads(archive.read("manifest.json")), bytearray(archive.read("payload-0.so")),
                       archive.read("maps-0.json"))

    @property
    def entry(self) -> dict[str, Any]:
        found: dict[str, Any] = self.manifest["images"][0]
        return found

    def data(self) -> bytes:
        if not self.keep_hashes:
            self.entry["payload"].update(sha256=hashlib.sha256(self.payload).hexdigest(), size=len(self.payload))
            self.entry["maps"]["sha256"] = hashlib.sha256(self.maps).hexdigest()
        out = io.BytesIO()
        members = [("manifest.json", json.dumps(self.manifest).encode()), ("payload-0.so", bytes(self.payload)),
                   ("maps-0.json", self.maps), *self.extra]
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)
            archive.comment = self.comment
        return self.prefix + out.getvalue()

    def identify(self, **changes: Any) -> None:
        """Change the generation or its parent in the manifest and the payload, with the id that goes with it."""
        self.entry.update(changes)
        maps = {m["object"]: hashlib.sha256(canonical(m)).hexdigest() for m in json.loads(self.maps)}
        document = {"build_id": self.entry["build_id"], "generation": self.entry["generation"], "parent": self.entry["parent"],
                    "maps": maps}
        self.entry["id"] = hashlib.sha256(canonical(document)).hexdigest()
        self.write_identity()

    def write_identity(self) -> None:
        at = self.offset(self.file.entry)
        struct.pack_into("<Q", self.payload, at + 16, self.entry["generation"])
        self.payload[at + 24:at + 88] = bytes.fromhex(self.entry["id"]) + bytes.fromhex(self.entry["parent"])

    # ---- the payload --------------------------------------------------------------------------------------------

    @property
    def file(self) -> Linked:
        return Linked(bytes(self.payload), "payload-0.so")

    @property
    def tables(self) -> Payload:
        return Payload(self.file)

    def offset(self, address: int) -> int:
        load = self.file.load_of(address)
        assert load is not None and address - load.address < load.file_size
        return load.offset + address - load.address

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.payload[self.offset(address):self.offset(address) + size])

    def write(self, address: int, data: bytes) -> None:
        self.payload[self.offset(address):self.offset(address) + len(data)] = data

    def set_word(self, address: int, value: int) -> None:
        self.write(address, struct.pack("<Q", value))

    def set_pointer(self, address: int, value: int) -> None:
        """What the word at `address` will hold: the addend of its relocation, or its bytes."""
        at = self.relocation(address)
        if at is None:
            self.set_word(address, value)
        else:
            self.write(at + 16, struct.pack("<Q", value))

    def relocation(self, offset: int) -> int | None:
        """The address of the entry that relocates `offset`."""
        for tag, size in ((7, 8), (23, 2)):
            start = self.file.tag(tag)
            for at in range(start, start + self.file.tag(size), 24):
                if self.file.word(at) == offset:
                    return at
        return None

    def relocation_of_type(self, *types: int) -> int:
        """The address of an entry of one of these types."""
        found = next(r for r in self.file.relocations if r.type in types)
        at = self.relocation(found.offset)
        assert at is not None
        return at

    def table(self, name: str) -> tuple[int, int]:
        return self.tables.tables[name]

    def row(self, name: str, number: int, words: int) -> int:
        """The address of a row of a table."""
        start, count = self.table(name)
        assert number < count, f"the payload has {count} {name}"
        return start + 8 * words * number

    def set_count(self, name: str, count: int) -> None:
        self.set_word(self.file.entry + abi.PAYLOAD_TABLES[name] + 8, count)

    def header(self, number: int) -> list[int]:
        phoff, = struct.unpack_from("<Q", self.payload, 32)
        return list(_PHDR.unpack_from(self.payload, phoff + number * _PHDR.size))

    def set_header(self, number: int, **fields: int) -> None:
        """Change fields of a program header: type, flags, offset, address, file_size, size."""
        places = {"type": 0, "flags": 1, "offset": 2, "address": 3, "file_size": 5, "size": 6}
        phoff, = struct.unpack_from("<Q", self.payload, 32)
        values = self.header(number)
        for name, value in fields.items():
            values[places[name]] = value
        _PHDR.pack_into(self.payload, phoff + number * _PHDR.size, *values)

    def header_of(self, type: str, flags: int | None = None) -> int:
        found: list[Segment] = self.file.segments
        return next(i for i, s in enumerate(found) if s.type == type and (flags is None or s.flags == flags))

    def dynamic(self, tag: int) -> int:
        """The address of the value of a dynamic tag."""
        where = next(s for s in self.file.segments if s.type == "PT_DYNAMIC")
        return where.address + 16 * next(i for i, (t, _) in enumerate(self.file.dynamic) if t == tag) + 8

    def description_of(self, code: int) -> int:
        """The address of the entry of the unwind table for code that begins there."""
        start, size = self.table("eh_frame")
        at = start
        while at < start + size - 4:
            length, = struct.unpack("<I", self.read(at, 4))
            place = at + 8                              # of a pointer relative to itself, in what describes a function
            if place + struct.unpack("<i", self.read(place, 4))[0] == code:
                return at
            at += 4 + length
        raise AssertionError(f"nothing describes {code:#x}")

    def set_version(self, name: str, number: int) -> None:
        """Have the import `name` ask for the version of this number."""
        index = (self.symbol(name) - self.file.tag(DT_SYMTAB)) // 24
        self.write(self.file.tag(DT_VERSYM) + 2 * index, struct.pack("<H", number))

    def symbol(self, name: str) -> int:
        """The address of the dynamic symbol `name`."""
        start = self.file.tag(DT_SYMTAB)
        for index in range(1, 1000):
            if self.file.dynamic_symbol(index).symbol.name == name:
                return start + 24 * index
        raise AssertionError(f"no dynamic symbol {name}")

    def rename(self, old: str, new: str) -> None:
        """Change a string of the dynamic string table; both have one length."""
        assert len(old) == len(new)
        start = self.file.tag(DT_STRTAB)
        raw = self.file.read(start, self.file.tag(DT_STRSZ))
        self.write(start + raw.index(old.encode() + b"\0"), new.encode())


def canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")


def named(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    return next(r for r in rows if r["name"] == name)
