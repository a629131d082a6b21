"""Linked images, filed under their build-id, and what was applied to them since.

A running process names its image by build-id; its baseline is found by that, however often the program was
linked again in between. Several builds may work in one store at the same time.

    HOTRELOAD_DIR/
      baselines/BUILD-ID/image        a copy of the linked image
      baselines/BUILD-ID/origin.json  program, size of the copy
      baselines/BUILD-ID/index        where in it what lies, so that a patch need not read all of it (index.py)
      baselines/BUILD-ID/plain.json   what its uninstrumented objects are
      baselines/BUILD-ID/link.json    how it was linked: building.LinkRecord
      chains/BUILD-ID/NAME.GEN.hotpatch
      chains/BUILD-ID/trial.json      the generation of which it is not known yet whether a process took it
      payloads/SHA256.so              read-only; agents map copies of these files, debuggers find them here
      locks/BUILD-ID
"""
from __future__ import annotations

import contextlib
import errno
import fcntl
import filecmp
import hashlib
import json
import os
import re
import shutil
import struct
import tempfile
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from . import abi, arch, bundle, elf, index, mapped, steps
from .bundle import Bundle
from .elf import Elf, ElfError, Section
from .errors import Damaged, HotreloadError, NotForImage, Refusal, Refused, about
from .garbage import not_collected
from .live import NO_ID, ImageFacts, ImageSymbol, LiveState, TlsSegment, apply_generations, from_image
from .names import MAP_SECTION, NOTE_OWNER, SLOT_SUFFIX
from .objectmap import MapError, unpack_all
from .stamp import Stamp, stamp

_T = TypeVar("_T")

# ---- reading a linked image --------------------------------------------------------------------------------------

# System V gABI, chapters 4 and 5.
_SHT_DYNAMIC, _SHT_DYNSYM = 6, 11
_PT_INTERP, _PT_TLS = 3, 7
_NT_GNU_BUILD_ID = 3
_DT_NEEDED, _DT_SONAME, _DT_RPATH, _DT_RUNPATH, _DT_FLAGS_1 = 1, 14, 15, 29, 0x6FFFFFFB
_DF_1_PIE = 0x08000000
_STB_UNIQUE = 10                  # of a GNU extension; as good as global
_TYPES = {elf.STT_NOTYPE: "NOTYPE", elf.STT_OBJECT: "OBJECT", elf.STT_FUNC: "FUNC", elf.STT_TLS: "TLS",
          elf.STT_GNU_IFUNC: "IFUNC"}
_BINDINGS = {elf.STB_LOCAL: "LOCAL", elf.STB_GLOBAL: "GLOBAL", elf.STB_WEAK: "WEAK", _STB_UNIQUE: "GLOBAL"}
_VISIBILITIES = ("DEFAULT", "INTERNAL", "HIDDEN", "PROTECTED")
_PHDR, _SYM = struct.Struct("<IIQQQQQQ"), struct.Struct("<IBBHQQ")
_RELA, _DYN = struct.Struct("<QQq"), struct.Struct("<QQ")
_NOTE = struct.Struct("<III")
# runtime/internal.h, struct hr_image, which the image note of runtime/hotreload_abi.h points to.
_HR_IMAGE_MAGIC = 0x31474D49
_HR_IMAGE_HEAD, _HR_IMAGE_ARENA, _DISTANCE = struct.Struct("<II"), 24, struct.Struct("<q")
_POINTER = struct.Struct("<Q")


@not_collected()
def read_image(path: Path | str, called: Path | str | None = None) -> ImageFacts:
    """What the tool needs to know of a linked image; messages speak of the file as `called`.

    Raises Damaged if the file is no sound ELF image, Refused with advice if it is one that cannot be patched (no
    symbol table, no build-id, not instrumented), and OSError.
    """
    data = Path(path).read_bytes()
    image = _parse(data, str(called or path))
    if image.type not in (elf.ET_EXEC, elf.ET_DYN):
        raise Refused([Refusal("not-linked", image.where, "", "is not a linked program or shared library",
                               "link it first")])
    build_id = _build_id(image)
    sections = {s.name: s for s in image.sections}
    _check_patchable(image, build_id, sections)
    segments = _segments(data, image.where)
    dynamic, strings = _dynamic(image)
    with _damage_told(image.where):
        symbols = _symbols(image)
    maps = _maps(image, sections[MAP_SECTION])
    if any(m.functions for m in maps) and not any(s.name.endswith(SLOT_SUFFIX) for s in symbols):
        raise Refused([Refusal("no-symbols", image.where, "", "its symbol table was cut down: no instrumented function is in it",
                               "link it without -retain-symbols-file and the like")])
    return ImageFacts(
        path=str(path), build_id=build_id, kind=_kind(image, segments, dynamic), machine=image.machine,
        maps=maps, symbols=symbols, slots=_slots(image, symbols), arena=_arena(image),
        tls=next((TlsSegment(s[3], s[6], s[7]) for s in segments if s[0] == _PT_TLS), None), exported=_exported(image),
        needed=[_text(image, strings, v) for tag, v in dynamic if tag == _DT_NEEDED],
        runpath=[p for tag, v in dynamic if tag in (_DT_RPATH, _DT_RUNPATH) for p in _text(image, strings, v).split(":")])


def read_build_id(path: Path | str, called: Path | str | None = None) -> str:
    """The build-id of any ELF file, hexadecimal; "" if it has none. Raises Damaged, OSError."""
    return _build_id(_parse(Path(path).read_bytes(), str(called or path)))


def _parse(data: bytes, where: str) -> Elf:
    with _damage_told(where):
        return mapped.parse(data, where)


@contextlib.contextmanager
def _damage_told(where: str) -> Iterator[None]:
    try:
        yield
    except ElfError as e:
        raise Damaged(where, "", str(e).removeprefix(f"{where}: ")) from e


def _has_symbols(image: Elf) -> bool:
    return any(s.type == elf.SHT_SYMTAB and s.size for s in image.sections)


def _check_patchable(image: Elf, build_id: str, sections: dict[str, Section]) -> None:
    refusals = []
    if not _has_symbols(image):
        refusals.append(Refusal("no-symbols", image.where, "", "has no symbol table",
                                "link it without -s, and strip a copy if you must"))
    if not build_id:
        refusals.append(Refusal("no-build-id", image.where, "", "has no build-id", "link it with -Wl,--build-id"))
    if MAP_SECTION not in sections:
        refusals.append(Refusal("not-instrumented", image.where, "", "holds no instrumented object",
                                "build it with the hotreload tool"))
    if arch.for_machine(image.machine) is None:
        refusals.append(Refusal("machine", image.where, "", f"is for ELF machine {image.machine}",
                                "only x86-64 is supported"))
    if refusals:
        raise Refused(refusals)


def _build_id(image: Elf) -> str:
    for section in image.sections:
        if section.type == elf.SHT_NOTE:
            for owner, kind, start, size in _notes(section):
                if owner == b"GNU\0" and kind == _NT_GNU_BUILD_ID:
                    return section.data[start:start + size].hex()
    return ""


def _notes(section: Section) -> Iterator[tuple[bytes, int, int, int]]:
    """(owner, type, start of the content in the section, its size) of each note.

    Fields are padded to 4 bytes, in sections aligned so to 8."""
    align = 8 if section.align == 8 else 4
    data, at = section.data, 0
    while at + _NOTE.size <= len(data):
        owner_size, size, kind = _NOTE.unpack_from(data, at)
        start = at + _NOTE.size
        content = start + owner_size + -(start + owner_size) % align
        if content + size > len(data):
            return
        yield data[start:start + owner_size], kind, content, size
        at = content + size + -(content + size) % align


def _segments(data: bytes, where: str) -> list[tuple[int, ...]]:
    """Program headers: (type, flags, offset, address, physical address, size in file, size in memory, alignment)."""
    offset, (entry_size, count) = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<HH", data, 54)
    if entry_size != _PHDR.size or offset + count * _PHDR.size > len(data):
        raise Damaged(where, "program headers", f"{count} of {entry_size} bytes at {offset:#x} do not fit (truncated?)")
    return [_PHDR.unpack_from(data, offset + i * _PHDR.size) for i in range(count)]


def _dynamic(image: Elf) -> tuple[list[tuple[int, int]], Section | None]:
    """(tag, value) of the dynamic section, and its string table."""
    for section in image.sections:
        if section.type == _SHT_DYNAMIC:
            strings = _linked(image, section)
            size = len(section.data) // _DYN.size * _DYN.size
            return list(_DYN.iter_unpack(section.data[:size])), strings
    return [], None


def _linked(image: Elf, section: Section) -> Section:
    if section.link >= len(image.sections):
        raise Damaged(image.where, section.name, f"names section {section.link} of {len(image.sections)}")
    return image.sections[section.link]


def _text(image: Elf, table: Section | None, offset: int) -> str:
    data = table.data if table else b""
    end = data.find(b"\0", offset)
    if offset >= len(data) or end < 0:
        raise Damaged(image.where, table.name if table else "", f"no string at {offset:#x} of its {len(data)} bytes")
    return data[offset:end].decode("utf-8", "surrogateescape")


def _kind(image: Elf, segments: list[tuple[int, ...]], dynamic: list[tuple[int, int]]) -> str:
    if image.type == elf.ET_EXEC:
        return "exec"
    tags = dict(dynamic)
    is_program = any(s[0] == _PT_INTERP for s in segments) and _DT_SONAME not in tags   # for linkers that set no flag
    return "pie" if tags.get(_DT_FLAGS_1, 0) & _DF_1_PIE or is_program else "shared"


def _maps(image: Elf, section: Section) -> list[Any]:
    try:
        return list(unpack_all(section.data))
    except MapError as e:
        raise Damaged(image.where, section.name, str(e)) from e


def _symbols(image: Elf) -> list[ImageSymbol]:
    """Defined symbols. Where several versions of a public name exist, the one that new objects would bind to."""
    found: list[ImageSymbol] = []
    public: dict[str, tuple[int, ImageSymbol]] = {}
    sections = [s.name for s in image.sections]
    for name, info, other, shndx, value, size in elf.symbol_rows(image):
        type_, binding = _TYPES.get(info & 15), _BINDINGS.get(info >> 4)
        if shndx == elf.SHN_UNDEF or not name or type_ is None or binding is None:
            continue
        name, at, version = name.partition("@")
        section = sections[shndx] if shndx > 0 else "*ABS*"
        symbol = ImageSymbol(name, value, size, type_, binding, _VISIBILITIES[other & 3], section)
        if binding == "LOCAL":
            found.append(symbol)
            continue
        rank = 0 if not at else 1 if version.startswith("@") else 2     # plain, default version, other version
        if name not in public or rank < public[name][0]:
            public[name] = (rank, symbol)
    return found + [symbol for _, symbol in public.values()]


def _slots(image: Elf, symbols: list[ImageSymbol]) -> dict[int, int]:
    """Slot address -> address of the code it holds at start."""
    return _pointers(image, {s.address for s in symbols if s.name.endswith(SLOT_SUFFIX)})


def _pointers(image: Elf, addresses: set[int]) -> dict[int, int]:
    """What the pointers at `addresses` hold once loaded: from the relocation where there is one, else from the bytes.
    Those that hold nothing are left out."""
    found = _words(image, sorted(addresses))
    cpu = arch.for_machine(image.machine)
    for section in image.sections:
        if section.type == elf.SHT_RELA and section.flags & elf.SHF_ALLOC:
            size = len(section.data) // _RELA.size * _RELA.size
            found.update({offset: addend for offset, info, addend in _RELA.iter_unpack(section.data[:size])
                          if offset in addresses and cpu is not None and info & 0xFFFFFFFF == cpu.R_RELATIVE})
    return {a: value for a, value in found.items() if value}


def _words(image: Elf, addresses: list[int]) -> dict[int, int]:
    """What the file has at these addresses, which are sorted; nothing for those of which it has nothing."""
    found: dict[int, int] = {}
    for section in image.sections:
        if section.flags & elf.SHF_ALLOC and not section.nobits:
            last = bisect_right(addresses, section.addr + section.size - _POINTER.size)
            inside = addresses[bisect_left(addresses, section.addr):last]
            data = section.data if inside else b""
            for address in inside:
                found.setdefault(address, int(_POINTER.unpack_from(data, address - section.addr)[0]))
    return found


def _bytes_at(image: Elf, address: int, size: int) -> bytes:
    """`size` bytes of the file that will lie at `address`; none if they don't all."""
    for section in image.sections:
        if section.flags & elf.SHF_ALLOC and not section.nobits and 0 <= address - section.addr <= section.size - size:
            return mapped.piece(section, address - section.addr, size)
    return b""


def _arena(image: Elf) -> tuple[int, int]:
    """(address, size) of the arena, found as an agent finds it: the note says where the runtime's struct hr_image is."""
    for section in image.sections:
        for owner, kind, start, size in _notes(section) if section.type == elf.SHT_NOTE else ():
            if owner == NOTE_OWNER and kind == abi.NOTE_IMAGE and size == _DISTANCE.size:
                return _arena_of(image, section.addr + start + _DISTANCE.unpack_from(section.data, start)[0])
    raise Refused([Refusal("no-runtime", image.where, "", "has instrumented objects but not the runtime",
                           "link it with the hotreload tool")])


def _arena_of(image: Elf, hr_image: int) -> tuple[int, int]:
    head = _bytes_at(image, hr_image, _HR_IMAGE_HEAD.size)
    magic, version = _HR_IMAGE_HEAD.unpack(head) if head else (0, 0)
    ends = [hr_image + _HR_IMAGE_ARENA, hr_image + _HR_IMAGE_ARENA + _POINTER.size]
    found = _pointers(image, set(ends))
    if magic != _HR_IMAGE_MAGIC or len(found) != 2 or found[ends[0]] > found[ends[1]]:
        raise Damaged(image.where, f"hr_image at {hr_image:#x}", "is not the runtime's description of its image")
    if version != abi.ABI:
        raise Refused([Refusal("abi", image.where, "", f"holds a runtime of agent protocol {version}, the tool speaks {abi.ABI}",
                               "build and start the program anew, or use the tool it was built with")])
    return found[ends[0]], found[ends[1]] - found[ends[0]]


def _exported(image: Elf) -> list[str]:
    """What other images may define instead: not what is protected, as the bounds of an array are that the linker makes."""
    found = []
    for section in image.sections:
        if section.type == _SHT_DYNSYM:
            table = _linked(image, section)
            size = len(section.data) // _SYM.size * _SYM.size
            for name, info, other, shndx, _, _ in _SYM.iter_unpack(section.data[:size]):
                if shndx != elf.SHN_UNDEF and info >> 4 != elf.STB_LOCAL and other & 3 == elf.STV_DEFAULT:
                    found.append(_text(image, table, name))
    return found


# ---- the store ---------------------------------------------------------------------------------------------------

_BUILD_ID = re.compile(r"(?:[0-9a-f]{2}){1,32}\Z")
_TEMPORARY = ".tmp-"
_PLAIN = "plain.json"
_INDEX, _ORIGIN = "index", "origin.json"
_STALE_SECONDS = 24 * 3600        # what nobody refers to is left alone this long: its writer may still be at work
_POLL_SECONDS = 0.02
_BUNDLES = 256                     # that are kept in memory, each with its payload


class Store:
    """A HOTRELOAD_DIR. Methods may be called from several threads and processes at once."""

    def __init__(self, root: Path | str, lock_seconds: float = 60.0) -> None:
        """`lock_seconds`: how long to wait for another build that works on the same image."""
        self.root = Path(root)
        self.lock_seconds = lock_seconds
        self._held = threading.local()
        self._bundles: dict[Path, tuple[Stamp | None, Bundle]] = {}       # by path, with what says that it is the same file
        self._bundles_lock = threading.Lock()

    # ---- images ---------------------------------------------------------------------------------

    def file_image(self, path: Path | str, program: str, plain: Mapping[str, str] | None = None) -> str:
        """Keep a copy of the image at `path`, which was linked as `program`; returns its build-id. `plain`: `note_plain`.

        Also takes /proc/PID/exe, to recover a baseline that was lost. An image that is filed already is kept as it is.
        Raises Damaged, Refused (`read_image`; also if another image was filed under this build-id), OSError.
        """
        baselines = self._made("baselines")
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=baselines))
        try:
            copy = temporary / "image"
            found = stamp(path)               # before it is read: what is written meanwhile is another file
            steps.reached(steps.Step.IMAGE)
            _copy(Path(path), copy)
            build_id = read_build_id(copy, path)
            if build_id and self.lookup(build_id) is not None:
                self._check_same(build_id, copy, path)
                if plain is not None:
                    self.note_plain(build_id, plain)
                origin = _read_json(self._baseline(build_id) / _ORIGIN) or {}
                _write_json(self._baseline(build_id) / _ORIGIN, {**origin, "linked": found})
            else:
                self._file(temporary, path, program, plain, found)
            self._remember(build_id, program)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return build_id

    @not_collected()
    def _file(self, temporary: Path, path: Path | str, program: str, plain: Mapping[str, str] | None,
              found: Stamp | None) -> None:
        """Complete the directory, then let it appear under its name in one step."""
        copy = temporary / "image"
        facts = read_image(copy, path)
        facts.path = str(self._image(facts.build_id))
        steps.reached(steps.Step.FACTS)
        _write_index(temporary / _INDEX, copy, facts)
        _write_json(temporary / _ORIGIN, {"program": program, "size": copy.stat().st_size, "linked": found})
        if plain is not None:
            _write_json(temporary / _PLAIN, {"objects": dict(plain)})
        temporary.chmod(0o755)
        target = self._baseline(facts.build_id)
        if target.exists() and self.lookup(facts.build_id) is None:
            shutil.rmtree(target, ignore_errors=True)          # what a crash left
        steps.reached(steps.Step.FILED)
        try:
            temporary.rename(target)
        except OSError as e:
            if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Another build filed it in the meantime; `_check_same` was not asked, but it links the same objects.

    def _check_same(self, build_id: str, copy: Path, path: Path | str) -> None:
        """A stripped copy of a filed image is fine; another program under its build-id (set by hand) is not."""
        filed = self._image(build_id)
        if filecmp.cmp(filed, copy, shallow=False):
            return
        if not _has_symbols(_parse(copy.read_bytes(), str(path))):
            return
        mine, theirs = read_image(copy, path).to_json(), self.load(build_id).to_json()
        if {**mine, "path": ""} != {**theirs, "path": ""}:
            raise Refused([Refusal("build-id-reused", str(path), "", f"another image was filed under build-id {build_id}",
                                   "let the linker compute build-ids: -Wl,--build-id=sha1")])

    def _remember(self, build_id: str, program: str) -> None:
        """Note that `program` was linked as this image just now: recent ones are kept by `prune`."""
        links = self._made("programs")
        name = hashlib.sha256(program.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        with self._lock(f"program-{name}"):
            known = _read_json(links / f"{name}.json") or {}
            builds = [b for b in known.get("builds", []) if b != build_id and self.lookup(b) is not None] + [build_id]
            steps.reached(steps.Step.PROGRAM)
            _write_json(links / f"{name}.json", {"program": program, "builds": builds})

    def lookup(self, build_id: str) -> Path | None:
        """The filed image, None if there is none (or only a torso of one, after a crash)."""
        image = self._image(build_id)
        origin = _read_json(self._baseline(build_id) / _ORIGIN)
        try:
            return image if origin and image.stat().st_size == origin.get("size") else None
        except OSError:
            return None

    def note_plain(self, build_id: str, digests: Mapping[str, str]) -> None:
        """Remember what the uninstrumented objects of an image were (object -> `instrument.plain_digest`): a change to one
        of them cannot be patched, and must not be overlooked."""
        _write_json(self._baseline(build_id) / _PLAIN, {"objects": dict(digests)})

    def plain(self, build_id: str) -> dict[str, str]:
        """What `note_plain` was told; empty for an image that was recovered from a process."""
        known = _read_json(self._baseline(build_id) / _PLAIN) or {}
        return {str(name): str(digest) for name, digest in known.get("objects", {}).items()}

    def note_link(self, build_id: str, record: Mapping[str, Any]) -> None:
        """Remember how an image was linked (`building.LinkRecord`)."""
        _write_json(self._baseline(build_id) / "link.json", record)

    def link(self, build_id: str) -> dict[str, Any] | None:
        """What `note_link` was told; None for an image that was filed without, or not at all."""
        return _read_json(self._baseline(build_id) / "link.json")

    def load(self, build_id: str) -> ImageFacts:
        """All facts about a filed image. Raises NotForImage if it is not filed."""
        return read_image(self._found(build_id))

    def _found(self, build_id: str) -> Path:
        image = self.lookup(build_id)
        if image is None:
            raise NotForImage(f"no baseline of build-id {build_id} in {self.root}: it was built elsewhere or pruned; "
                              "file it again from the running process, or build and start the program anew")
        return image

    def open_index(self, build_id: str) -> index.Index | None:
        """The index of a filed image. One that is missing, of another version or damaged is made anew; None if that cannot
        be. Raises NotForImage if the image is not filed."""
        image, path = self._found(build_id), self._index(build_id)
        with contextlib.suppress(index.BadIndex):
            return index.Index(path, image, build_id)
        with contextlib.suppress(index.BadIndex, OSError):
            _write_index(path, image, read_image(image))
            return index.Index(path, image, build_id)
        return None

    def with_index(self, build_id: str, work: Callable[[], _T]) -> _T:
        """What `work` returns, which asks the index; once more with a new index if it turns out to be damaged. Raises Damaged
        if that one is, too."""
        with contextlib.suppress(index.BadIndex):
            return work()
        path = self._index(build_id)
        path.unlink(missing_ok=True)
        try:
            return work()
        except index.BadIndex as e:
            raise Damaged(path, "index of an image", f"{e}; remove it, and see whether its disk is sound") from e

    def filed(self, path: Path | str) -> str | None:
        """The build-id of the image at `path` if it was filed from there and is the same file since; None: nobody knows."""
        with contextlib.suppress(OSError, ElfError):
            build_id = _build_id(mapped.read(path))
            origin, found = _read_json(self._baseline(build_id) / _ORIGIN) if build_id else None, stamp(path)
            if origin and found and origin.get("linked") == list(found) and self.lookup(build_id) is not None:
                return build_id
        return None

    def programs(self) -> dict[str, list[str]]:
        """Program -> build-ids of its filed images, the most recently linked last."""
        found = {}
        for path in sorted((self.root / "programs").glob("*.json")):
            record = _read_json(path)
            if record:
                builds = [b for b in record["builds"] if self.lookup(b) is not None]
                if builds:
                    found[str(record["program"])] = builds
        return found

    # ---- generations ----------------------------------------------------------------------------

    def chain(self, build_id: str) -> list[Path]:
        """The bundles made for an image, oldest first: generations 1, 2, … without a gap. Raises Damaged."""
        folder = self._chain(build_id)
        found: dict[int, Path] = {}
        for name in names_in(folder):
            number = name.removesuffix(bundle.SUFFIX).rpartition(".")[2]
            if name.startswith(".") or not name.endswith(bundle.SUFFIX):
                continue
            if not number.isdigit() or int(number) in found:
                raise Damaged(folder / name, "", "does not belong into this chain; remove it")
            found[int(number)] = folder / name
        missing = next((g for g in range(1, len(found) + 1) if g not in found), None)
        if missing is not None:
            raise Damaged(self._chain(build_id), f"generation {missing}", "is missing, though later ones are there")
        return [found[g] for g in sorted(found)]

    def bundles(self, build_id: str) -> list[Bundle]:
        """The chain, read and checked."""
        return [self.bundle(path) for path in self.chain(build_id)]

    def bundle(self, path: Path) -> Bundle:
        """One of a chain, read and checked: once, as long as it is the same file. Not to be changed."""
        found = stamp(path)
        known = self._bundles.get(path)
        if found is None or known is None or known[0] != found:
            known = found, bundle.read(path)
        with self._bundles_lock:
            self._bundles.pop(path, None)
            self._bundles[path] = known
            if len(self._bundles) > _BUNDLES:
                del self._bundles[next(iter(self._bundles))]
        return known[1]

    def append(self, build_id: str, made: Bundle) -> Path:
        """Make `made` the next generation of an image; returns its file.

        Raises NotForImage if the chain went on since `made` was planned (another `scons hotpatch` was faster), and
        HotreloadError if the lock could not be had in time.
        """
        with self.locked(build_id):
            patch = made.image(build_id)
            if patch is None:
                raise NotForImage(f"the bundle of {made.manifest['program']} brings nothing to build-id {build_id}")
            entry = patch[0]
            chain = self.chain(build_id)
            last = self._last_id(build_id, chain)
            if entry["generation"] != len(chain) + 1 or entry["parent"] != last:
                raise NotForImage(f"generation {entry['generation']} after {entry['parent'][:12]} does not follow generation "
                                  f"{len(chain)}, {last[:12]}, of build-id {build_id}: another patch was made in the "
                                  "meantime; run it again")
            folder = self._made("chains") / _checked(build_id)
            folder.mkdir(exist_ok=True)
            target = folder / bundle.file_name(made.manifest["program"], entry["generation"])
            steps.reached(steps.Step.TRIAL)
            _write_json(self._trial(build_id), {"generation": entry["generation"]})
            steps.reached(steps.Step.BUNDLE)
            bundle.write(target, made)
            steps.reached(steps.Step.APPENDED)
            return target

    def on_trial(self, build_id: str) -> Path | None:
        """The last bundle of the chain, if nobody has said yet what became of it: the tool that made it may have been killed
        before it handed it to a process, or after. Ask within `locked`."""
        noted, chain = _read_json(self._trial(build_id)), self.chain(build_id)
        return chain[-1] if noted and chain and noted.get("generation") == len(chain) else None

    def keep(self, build_id: str, path: Path) -> None:
        """The bundle stays in its chain: a process has it, or it waits for one."""
        with self.locked(build_id):
            steps.reached(steps.Step.SETTLE)
            if self.on_trial(build_id) == path:
                self._trial(build_id).unlink(missing_ok=True)

    def withdraw(self, build_id: str, path: Path) -> None:
        """Take the last bundle of a chain back: no process has it. One that is not the last any more stays."""
        with self.locked(build_id):
            steps.reached(steps.Step.SETTLE)
            if self.chain(build_id)[-1:] == [path]:
                path.unlink()
                self._trial(build_id).unlink(missing_ok=True)

    def _last_id(self, build_id: str, chain: list[Path]) -> str:
        if not chain:
            return NO_ID
        patch = self.bundle(chain[-1]).image(build_id)
        if patch is None:
            raise Damaged(chain[-1], "", f"brings nothing to build-id {build_id}; remove it from the chain")
        return str(patch[0]["id"])

    def live_state(self, build_id: str, generation: int | None = None) -> LiveState:
        """The state of a process that took the chain, or the first `generation` bundles of it."""
        steps.reached(steps.Step.PLAN)
        state = self.as_built(build_id)
        generations = []
        for path in self.chain(build_id)[:generation]:
            patch = self.bundle(path).image(build_id)
            if patch is None:
                raise Damaged(path, "", f"brings nothing to build-id {build_id}; remove it from the chain")
            generations.append((patch[0], patch[2]))
        return apply_generations(state, generations)

    def as_built(self, build_id: str) -> LiveState:
        """The state of a process that took nothing yet: by lookup, where there is an index."""
        known = self.open_index(build_id)
        return from_image(self.load(build_id)) if known is None else index.live_state(known, lambda: self.load(build_id))

    def payload(self, data: bytes) -> Path:
        """A read-only file with these bytes, named by them: what is handed to agents. One that was changed is made anew."""
        folder = self._made("payloads")
        path = folder / f"{hashlib.sha256(data).hexdigest()}.so"
        try:
            if path.read_bytes() == data:
                os.utime(path)                      # it is in use again: `prune` leaves it alone for a while
                return path
        except FileNotFoundError:
            pass
        steps.reached(steps.Step.PAYLOAD)
        bundle.write_atomically(path, data, 0o444)
        return path

    def linked(self, live: LiveState, generation: int = 0) -> Elf:
        """The file that holds what a generation of `live` brought: the image, or a payload. Not to be changed."""
        if generation == 0:
            return mapped.read(live.path)
        chain = self.chain(live.build_id)
        patch = self.bundle(chain[generation - 1]).image(live.build_id) if generation <= len(chain) else None
        if patch is None:
            raise Damaged(self._chain(live.build_id), f"generation {generation}", "brings nothing to this image")
        return elf.parse(patch[1], f"payload of generation {generation}")

    def derived(self, file: Elf, make: Callable[[Elf], _T]) -> _T:
        """`make(file)`, for what `linked` gave: what a resident session keeps beside it (watch/memory.py)."""
        return make(file)

    # ---- one at a time --------------------------------------------------------------------------

    def locked(self, build_id: str) -> contextlib.AbstractContextManager[None]:
        """Nobody else appends to the chain of this image while it is held. May be nested in one thread."""
        return self._lock(_checked(build_id))

    @contextlib.contextmanager
    def _lock(self, name: str, seconds: float | None = None) -> Iterator[None]:
        held: set[str] = self._held.__dict__.setdefault("names", set())
        if name in held:
            yield
            return
        # Lock files stay: removing one would let two builds hold two files of one name.
        with open(self._made("locks") / name, "ab") as file:
            _flock(file.fileno(), self.lock_seconds if seconds is None else seconds, file.name)
            held.add(name)
            try:
                yield
            finally:
                held.discard(name)

    # ---- pruning --------------------------------------------------------------------------------

    def prune(self, running: Collection[str], keep_recent: int) -> list[str]:
        """Remove images, with their chains, that no process runs and that are not among the `keep_recent` last links
        of a program; returns their build-ids. `running`: build-ids of all images loaded in living processes."""
        steps.reached(steps.Step.PRUNE)
        keep = set(running)
        for builds in self.programs().values():
            keep.update(builds[-keep_recent:] if keep_recent > 0 else [])
        removed = []
        self._prune_temporaries()
        for path in sorted((self.root / "baselines").glob("*")):
            if path.name not in keep and _BUILD_ID.match(path.name) and self._remove(path.name):
                removed.append(path.name)
        self._prune_payloads()
        return removed

    def _remove(self, build_id: str) -> bool:
        """False if a build is at work on it, or it is gone already."""
        try:
            with self._lock(build_id, seconds=0):
                if not self._baseline(build_id).exists():
                    return False
                doomed = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._made("baselines")))
                self._baseline(build_id).rename(doomed / "baseline")      # gone in one step, whatever happens next
                if self._chain(build_id).exists():
                    self._chain(build_id).rename(doomed / "chain")
                shutil.rmtree(doomed)
                return True
        except _LockTimeout:
            return False

    def _prune_temporaries(self) -> None:
        """What somebody was writing who was killed. All such names begin with a dot."""
        for kept in ("baselines", "chains", "payloads", "programs"):
            for path in (*(self.root / kept).glob(".*"), *(self.root / kept).glob("*/.*")):
                _remove_if_stale(path)

    def _prune_payloads(self) -> None:
        """Processes have copies. Those that a chain brings are kept for processes to come, and for debuggers."""
        stale = [path for path in (self.root / "payloads").glob("*.so") if _is_stale(path)]
        if not stale:
            return
        try:
            kept = {entry["payload"]["sha256"] for chain in (self.root / "chains").glob("*")
                    for made in self.bundles(chain.name) for entry in made.manifest["images"]}
        except Damaged:
            return                       # what it needs is not known; who uses that chain is told
        for path in stale:
            if path.stem not in kept:
                _remove_if_stale(path)

    # ---- places ---------------------------------------------------------------------------------

    def _made(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _baseline(self, build_id: str) -> Path:
        return self.root / "baselines" / _checked(build_id)

    def _image(self, build_id: str) -> Path:
        return self._baseline(build_id) / "image"

    def _index(self, build_id: str) -> Path:
        return self._baseline(build_id) / _INDEX

    def _chain(self, build_id: str) -> Path:
        return self.root / "chains" / _checked(build_id)

    def _trial(self, build_id: str) -> Path:
        return self._chain(build_id) / "trial.json"


class _LockTimeout(HotreloadError):
    """The lock is held by someone else."""


def _flock(descriptor: int, seconds: float, name: str) -> None:
    """Take an exclusive lock. The kernel has no flock with a deadline, so it is tried until one."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            if time.monotonic() >= deadline:
                raise _LockTimeout(f"{name}: another build holds this lock for more than {seconds:g} s; "
                                   "wait for it to end, then run this again") from e
            time.sleep(_POLL_SECONDS)


def _checked(build_id: str) -> str:
    """Build-ids come from files and sockets, and become path names here."""
    if not _BUILD_ID.match(build_id):
        raise NotForImage(f"{build_id!r} is not a build-id")
    return build_id


def names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _copy(source: Path, target: Path) -> None:
    """A copy that shares blocks where the file system can (reflink); never a link, since linkers may write in place."""
    with open(source, "rb") as reader, open(target, "xb") as writer, about(target):
        try:
            while os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 30):
                pass
        except OSError as e:
            if e.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                raise
            reader.seek(0)
            writer.seek(0)
            writer.truncate()
            shutil.copyfileobj(reader, writer, 1 << 20)


def _write_json(path: Path, document: Any) -> None:
    bundle.write_atomically(path, json.dumps(document, separators=(",", ":")).encode("ascii"))


def _read_json(path: Path) -> dict[str, Any] | None:
    """None for a file that is not there, or was damaged by a crash: everything kept so can be made again."""
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


@not_collected()
def _write_index(path: Path, image: Path, facts: ImageFacts) -> None:
    """Make the index of an image, if its maps and symbols fit together; who needs the live state is told why they do not."""
    with contextlib.suppress(HotreloadError, index.BadIndex):
        bundle.write_atomically(path, index.make(image, facts, from_image(facts)))


def _is_stale(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime >= _STALE_SECONDS
    except FileNotFoundError:
        return False


def _remove_if_stale(path: Path) -> None:
    try:
        if not _is_stale(path):
            return
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except FileNotFoundError:
        pass                             # someone else was faster
