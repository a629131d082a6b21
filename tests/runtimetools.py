"""Programs with the runtime and payloads for them, made by hand: no part of the tool but `abi` and `process` is used.

A payload is C source plus a table of what it replaces, linked at arena addresses as docs/formats.md and
runtime/hotreload_abi.h describe it.
"""
from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import stubkind
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection, SymbolTableSection

from hotreload_tool import abi, process
from livetools import Program, clean_environment

REPO = Path(__file__).resolve().parents[1]
RUNTIME = REPO / "runtime"
SOURCES = REPO / "tests" / "runtime"
SOCKETS = "HOTRELOAD_RUNTIME_DIR"
ARENA = 1 << 20                       # bytes; small, so that it is easily filled
PAGE = 4096
NOBODY = 65534                        # kernel.overflowuid
STRICT = ["-std=gnu11", "-Wall", "-Wextra", "-Werror"]
SANITIZE = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
_SECONDS = 120.0
_PT_GNU_RELRO = 0x6474E552
_PHDR = struct.Struct("<IIQQQQQQ")

_SCRIPT = """\
PHDRS {{
  headers PT_LOAD FILEHDR PHDRS FLAGS(4); text PT_LOAD FLAGS(5); constants PT_LOAD FLAGS(4);
  data PT_LOAD FLAGS(6); dynamic PT_DYNAMIC FLAGS(6); relro PT_GNU_RELRO FLAGS(4); stack PT_GNU_STACK FLAGS(6);
}}
SECTIONS {{
  .hr.image 0 (NOLOAD) : {{ *(.hr.image) }} :NONE
  . = {base:#x} + SIZEOF_HEADERS;
  .hash : {{ *(.hash) }} :headers
  .gnu.hash : {{ *(.gnu.hash) }}
  .dynsym : {{ *(.dynsym) }}
  .dynstr : {{ *(.dynstr) }}
  .gnu.version : {{ *(.gnu.version) }}
  .gnu.version_r : {{ *(.gnu.version_r) }}
  .rela.dyn : {{ *(.rela.dyn) *(.rela.*) }}
  . = ALIGN(0x1000);
  .plt : {{ *(.plt) *(.plt.got) *(.plt.sec) }} :text
  .text : {{ *(.text .text.*) }}
  . = ALIGN(0x1000);
  .rodata : {{ *(.rodata .rodata.*) }} :constants
  .eh_frame : {{ hr_eh_frame = .; KEEP(*(.eh_frame)) LONG(0) }}
  .gcc_except_table : {{ *(.gcc_except_table .gcc_except_table.*) }}
  . = ALIGN(0x1000);
  .hotreload.payload : {{ KEEP(*(.hotreload.payload)) }} :data :relro
  .data.rel.ro : {{ *(.data.rel.ro .data.rel.ro.*) }} :data :relro
  .dynamic : {{ *(.dynamic) }} :data :relro :dynamic
  .got : {{ *(.got) *(.got.plt) }} :data :relro
  . = ALIGN(0x1000);
  hr_relro_end = .;
  .data : {{ *(.data .data.*) }} :data
  .bss : {{ *(.bss .bss.*) *(COMMON) }} :data
  . = ALIGN(0x1000);
  hr_end = .;
  /DISCARD/ : {{ *(.note.*) *(.comment) }}
}}
"""


def run(argv: Sequence[str | Path]) -> str:
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}\n{done.stdout}{done.stderr}"
    return done.stdout

# Python as a host that knows nothing of the runtime: loads libraries, and asks the last one.
HOST = """
import ctypes, sys
library = None
print("ready", flush=True)
for line in sys.stdin:
    word = line.strip()
    if word.startswith("load "):
        library = ctypes.CDLL(word[5:])
        print("loaded", flush=True)
    elif word == "library":
        print("library", library.library_value(), flush=True)
    elif word == "unload":
        import _ctypes
        handle = library._handle
        library = None
        _ctypes.dlclose(handle)
        print("unloaded", flush=True)
"""


# ---- images ------------------------------------------------------------------------------------------------------


@functools.cache
def runtime_objects(folder: Path, flags: tuple[str, ...]) -> tuple[list[Path], Path]:
    """The runtime's objects, compiled once per `folder` and `flags`, and the archive with poll.o."""
    out = folder / ("runtime" + hashlib.sha1(" ".join(flags).encode()).hexdigest()[:8])
    out.mkdir()
    objects = []
    for source in sorted(RUNTIME.glob("*.c")):
        target = out / f"{source.stem}.o"
        run(["gcc", *STRICT, "-fPIC", "-fvisibility=hidden", "-O2", f"-DHOTRELOAD_ARENA_SIZE={ARENA}", *flags,
             "-c", source, "-o", target])
        objects.append(target)
    poll = next(o for o in objects if o.stem == "poll")
    archive = out / "libhotreload_poll.a"
    run(["ar", "rcs", archive, poll])
    return [o for o in objects if o != poll], archive


@dataclass(frozen=True)
class Image:
    path: Path
    build_id: bytes
    symbols: Mapping[str, int]        # image-relative
    arena: int                        # image-relative
    sizes: Mapping[str, int]          # of the symbols, bytes

    @classmethod
    def read(cls, path: Path) -> Image:
        with open(path, "rb") as f:
            file = ELFFile(f)
            table = file.get_section_by_name(".symtab")
            assert isinstance(table, SymbolTableSection)
            symbols = {s.name: s["st_value"] for s in table.iter_symbols() if s["st_shndx"] != "SHN_UNDEF" and s.name}
            sizes = {s.name: s["st_size"] for s in table.iter_symbols() if s["st_shndx"] != "SHN_UNDEF" and s.name}
            arena = next(s["st_value"] for s in table.iter_symbols() if s.name == "arena" and s["st_size"] == ARENA)
            build_id = next(n["n_desc"] for s in file.iter_sections() if isinstance(s, NoteSection)
                            for n in s.iter_notes() if n["n_type"] == "NT_GNU_BUILD_ID")
        return cls(path, bytes.fromhex(build_id), symbols, arena, sizes)


def build(folder: Path, name: str, sources: Sequence[Path], *, compiler: str = "gcc", flags: Sequence[str] = (),
          runtime_flags: tuple[str, ...] = (), link: Sequence[str] = ()) -> Image:
    """An instrumented program, or with `-shared` in `link` a library."""
    objects, archive = runtime_objects(folder, runtime_flags)
    path = folder / name
    heads = ["-DHEADS"] if stubkind.KIND == "entry" else []
    run([compiler, "-O2", "-g", "-DHOTRELOAD=1", *heads, f"-I{RUNTIME}", f"-I{SOURCES}", *flags, "-o", path, *sources, *objects,
         archive, "-Wl,--build-id=sha1", "-pthread", "-ldl", *link])
    return Image.read(path)


# ---- payloads ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Payload:
    path: Path
    image: Image
    generation: int
    id: bytes
    end: int                           # image-relative, page-aligned
    targets: Mapping[str, int]         # function -> image-relative address of the code that is live with this payload
    symbols: Mapping[str, int]
    sizes: Mapping[str, int]           # function -> bytes of the code that is live with this payload

    def bytes_at(self, address: int) -> int:
        """Offset in the file of an image-relative address."""
        with open(self.path, "rb") as f:
            return next(iter(ELFFile(f).address_offsets(address)))


@dataclass(frozen=True)
class Update:
    symbol: str                        # of the image
    old: bytes
    new: bytes
    flags: int
    offset: int = 0


@dataclass
class Recipe:
    """What a payload is made from; the defaults make a sound first generation."""
    image: Image
    source: str
    redirects: Mapping[str, str]       # function of the image -> function of the source
    updates: Sequence[Update] = ()
    parts: Sequence[tuple[int, int, int]] = ()   # more old code: image-relative address, bytes, index of the redirect
    tls: Sequence[str] = ()            # words of the source that take the TLS module id
    previous: Payload | None = None
    generation: int | None = None
    parent: bytes | None = None
    id: bytes | None = None
    build_id: bytes | None = None
    base: int | None = None
    compiler: str = "gcc"
    flags: Sequence[str] = field(default_factory=list)
    old_targets: Mapping[str, int] = field(default_factory=dict)
    transient: bool = False            # nothing of it is referred to but by slots and frames


def _words(values: Sequence[object]) -> str:
    return "".join(f"  .quad {value}\n" for value in values)


def _table_source(recipe: Recipe, needed: Mapping[str, int], sizes: Mapping[str, int], generation: int,
                  identity: bytes) -> str:
    previous = recipe.previous
    parent = recipe.parent if recipe.parent is not None else previous.id if previous else bytes(abi.ID_SIZE)
    image = recipe.image
    head = abi.pack_payload(generation, identity, parent, recipe.build_id or image.build_id,
                            abi.PayloadFlags(recipe.transient))[:abi.PAYLOAD_HEAD.size]
    old = {name: image.symbols[f"{name}.hr_body"] for name in recipe.redirects}
    old.update({name: at for name, at in (previous.targets if previous else {}).items() if name in old})
    old.update(recipe.old_targets)
    old_sizes = {name: image.sizes[f"{name}.hr_body"] for name in recipe.redirects}
    old_sizes.update({name: size for name, size in (previous.sizes if previous else {}).items() if name in old_sizes})
    rows = [word for name, new in recipe.redirects.items()
            for word in (f"hr_image + {image.symbols[name + '.hr_slot']:#x}", f"hr_image + {old[name]:#x}", new,
                         old_sizes[name], sizes[new])]
    updates, contents = [], []
    for i, u in enumerate(recipe.updates):
        updates += [f"hr_image + {image.symbols[u.symbol] + u.offset:#x}", f"old{i}", f"new{i}", len(u.new), u.flags]
        contents += [f"old{i}: .byte {', '.join(map(str, u.old))}\n", f"new{i}: .byte {', '.join(map(str, u.new))}\n"]
    parts = [word for start, size, index in recipe.parts for word in (f"hr_image + {start:#x}", size, index)]
    heads = [word for i, name in enumerate(recipe.redirects) if f"{name}.hr_head" in image.symbols
             for word in (f"hr_image + {image.symbols[name + '.hr_head']:#x}", i)]
    pointers = ["redirects", len(recipe.redirects), "updates", len(recipe.updates), "hr_eh_frame", 0, "modules",
                len(recipe.tls), 0, 0, "parts", len(recipe.parts), "heads", len(heads) // 2]
    return ('  .section .hr.image,"aw",@nobits\n  .hidden hr_image\nhr_image:\n'
            + "".join(f"  .globl {name}\n  .hidden {name}\n{name} = hr_image + {at:#x}\n" for name, at in needed.items())
            + '  .section .hotreload.payload,"aw",@progbits\n  .balign 8\n  .globl hr_payload\n  .hidden hr_eh_frame\n'
            + "hr_payload:\n"
            + "hr_payload:\n"
            + f"  .byte {', '.join(map(str, head))}\n{_words(pointers)}redirects:\n{_words(rows)}updates:\n{_words(updates)}"
            + f"modules:\n{_words(recipe.tls)}parts:\n{_words(parts)}heads:\n{_words(heads)}{''.join(contents)}  .balign 8\n"
            + '  .section .note.GNU-stack,"",@progbits\n')


def _undefined(path: Path) -> set[str]:
    names = {line.split()[-1] for line in run(["nm", "-u", path]).splitlines()}
    return names - {"_GLOBAL_OFFSET_TABLE_"}


def make_payload(folder: Path, recipe: Recipe) -> Payload:
    """Compile, link at arena addresses, and fill in what only the finished link knows."""
    generation = recipe.generation or (recipe.previous.generation + 1 if recipe.previous else 1)
    base = recipe.base or (recipe.previous.end if recipe.previous else recipe.image.arena)
    name = hashlib.sha1(repr((recipe, base)).encode()).hexdigest()[:12]
    identity = recipe.id or hashlib.sha256(name.encode()).digest()
    source, code, tables = (folder / f"{name}.{end}" for end in ("c" if recipe.compiler == "gcc" else "cc", "o", "S"))
    source.write_text(recipe.source)
    run([recipe.compiler, "-O2", "-fPIC", f"-I{SOURCES}", *recipe.flags, "-c", source, "-o", code])
    sizes = _sizes(code)
    needed = {s: recipe.image.symbols[s] for s in _undefined(code) if s in recipe.image.symbols}
    tables.write_text(_table_source(recipe, needed, sizes, generation, identity))
    script, versions, out = folder / f"{name}.ld", folder / f"{name}.map", folder / f"{name}.so"
    script.write_text(_SCRIPT.format(base=base))
    versions.write_text("{ local: *; };\n")
    run([recipe.compiler, "-shared", "-nostartfiles", "-o", out, code, tables, "-Wl,--build-id=none,--no-eh-frame-hdr,-z,now",
         "-Wl,-z,max-page-size=4096,-z,noexecstack,-e,hr_payload", f"-Wl,-T,{script},--version-script,{versions}",
         "-Wl,-z,undefs", "-lm"])
    symbols = _finish(out)
    kept = dict(recipe.previous.targets) if recipe.previous else {}
    targets = {**kept, **{old: symbols[new] for old, new in recipe.redirects.items()}}
    kept_sizes = dict(recipe.previous.sizes) if recipe.previous else {}
    return Payload(out, recipe.image, generation, identity, symbols["hr_end"], targets, symbols,
                   {**kept_sizes, **{old: sizes[new] for old, new in recipe.redirects.items()}})


def _sizes(path: Path) -> dict[str, int]:
    with open(path, "rb") as f:
        return {s.name: s["st_size"] for s in ELFFile(f).get_section_by_name(".symtab").iter_symbols() if s.name}


def _finish(out: Path) -> dict[str, int]:
    """The size of the unwind table, and the RELRO header, which ld leaves empty with PHDRS of one's own."""
    with open(out, "rb") as f:
        file = ELFFile(f)
        symbols = {s.name: s["st_value"] for s in file.get_section_by_name(".symtab").iter_symbols() if s.name}
        frame = file.get_section_by_name(".eh_frame")
        header_offset = next(iter(file.address_offsets(symbols["hr_payload"])))
        headers = [(s.header, file["e_phoff"] + i * _PHDR.size) for i, s in enumerate(file.iter_segments())]
    raw = bytearray(out.read_bytes())
    struct.pack_into("<Q", raw, header_offset + abi.PAYLOAD_TABLES["eh_frame"] + 8, frame["sh_size"] if frame else 0)
    for header, at in headers:
        if header["p_type"] in ("PT_GNU_RELRO", "PT_NULL"):
            start = symbols["hr_payload"]
            size = symbols["hr_relro_end"] - start
            _PHDR.pack_into(raw, at, _PT_GNU_RELRO, 4, header_offset, start, start, size, size, 1)
    out.write_bytes(raw)
    return symbols


# ---- processes ---------------------------------------------------------------------------------------------------


def environment(**extra: str) -> dict[str, str]:
    """For programs that the session's client shall reach."""
    return clean_environment(HOTRELOAD_RUNTIME_DIR=os.environ["HOTRELOAD_RUNTIME_DIR"], **extra)


def start(image: Image | Path, *arguments: str, **extra: str) -> Program:
    """A running target program that said it is ready."""
    program = Program([image.path if isinstance(image, Image) else image, *arguments], env=environment(**extra))
    program.expect(r"^ready\n")
    return program


@contextlib.contextmanager
def for_all_users(image: Image) -> Iterator[Image]:
    """A copy where any user may run it."""
    with tempfile.TemporaryDirectory(prefix="hr-") as name:
        os.chmod(name, 0o755)
        yield Image.read(Path(shutil.copy(image.path, name)))


def start_unprivileged(image: Image, before: str = "", **extra: str) -> Program:
    """The program as a user without privileges; `before`: Python that its process runs first."""
    drop = f"os.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)" if os.geteuid() == 0 else ""
    code = f"import os, sys\n{before}\n{drop}\nos.execv(sys.argv[1], sys.argv[1:])"
    program = Program([sys.executable, "-c", code, image.path], env=environment(**extra))
    program.expect(r"^ready\n")
    return program


def wait_for_agent(pid: int) -> process.ProcessStatus:
    """A forked child opens its socket a little later: ask, and ask again whenever a name appears in the directory."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_CLOEXEC)
    assert watch >= 0
    try:
        moved_to = 0x80
        assert libc.inotify_add_watch(watch, os.environ[SOCKETS].encode(), moved_to) >= 0
        while True:
            try:
                return process.status(pid)
            except process.NoAgent:
                ready, _, _ = select.select([watch], [], [], 60)
                assert ready, f"no socket of process {pid} within 60 s"
                os.read(watch, 4096)
    finally:
        os.close(watch)


def wait_until_asleep(pid: int) -> None:
    """Until all threads sleep in system calls and were given no CPU meanwhile: one that said so is still on its way there."""
    deadline, before = time.monotonic() + _SECONDS, None
    while True:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        asleep = not any((task / "syscall").read_text().startswith("running") for task in tasks)
        runs = [(task / "schedstat").read_text().split()[2] for task in tasks] if asleep else None
        if runs and runs == before:
            return
        before = runs
        assert time.monotonic() < deadline, f"a thread of process {pid} runs on"


@dataclass(frozen=True)
class Mapping_:
    """One line of /proc/PID/maps. `file` is the file's name also where a copy of it in memory is mapped."""
    start: int
    end: int
    permissions: str
    file: str
    in_memory: bool = False


def maps(pid: int) -> list[Mapping_]:
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        words = line.split(None, 5)
        first, last = (int(x, 16) for x in words[0].split("-"))
        file = words[5] if len(words) > 5 else ""
        name = file.removeprefix("/memfd:")
        in_memory = name != file
        found.append(Mapping_(first, last, words[1], name.removesuffix(" (deleted)") if in_memory else file, in_memory))
    return found


def smaps(pid: int) -> list[tuple[Mapping_, dict[str, int]]]:
    """The same with the counts of /proc/PID/smaps, in KiB: "Rss", "Private_Dirty", "Shared_Clean", …"""
    found: list[tuple[Mapping_, dict[str, int]]] = []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split(None, 5)
        if "-" in words[0] and len(words) >= 5:
            first, last = (int(x, 16) for x in words[0].split("-"))
            found.append((Mapping_(first, last, words[1], words[5] if len(words) > 5 else ""), {}))
        elif words[-1] == "kB":
            found[-1][1][words[0].rstrip(":")] = int(words[1])
    return found


def _with_heads_idle(found: Sequence[Mapping_]) -> list[Mapping_]:
    """Copies of code pages (runtime/heads.c) taken for what they lie over: they stay where a patch was tried."""
    merged: list[Mapping_] = []
    for i, m in enumerate(found):
        if m.file == "hotreload-heads":
            around = next((n for n in (*merged[-1:], *found[i + 1:]) if n.file != m.file and n.permissions == m.permissions), m)
            m = replace(m, file=around.file, in_memory=around.in_memory)
        last = merged[-1] if merged else None
        if last is not None and m.file and "x" in m.permissions and replace(last, end=m.end) == replace(m, start=last.start) \
                and last.end == m.start:
            merged[-1] = replace(last, end=m.end)
        else:
            merged.append(m)
    return merged


def settled_maps(pid: int) -> list[Mapping_]:
    """The maps without what the allocator makes anonymously on the side (heaps of threads, stacks).

    Files, and the anonymous pages next to the program's own: its .bss with the arena.
    """
    found = _with_heads_idle(maps(pid))
    program = os.readlink(f"/proc/{pid}/exe")
    first = next(m.start for m in found if m.file == program)
    return [m for m in found if m.file or first <= m.start < first + (1 << 28)]
