"""baseline.py: reading linked images, and the store of them."""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import os
import shutil
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapmaker import fn, objmap, var

from elfwriter import Section, Symbol, image, note, relocatable
from hotreload_tool import baseline, bundle
from hotreload_tool.abi import ABI
from hotreload_tool.baseline import Store, read_build_id, read_image
from hotreload_tool.bundle import ImagePatch
from hotreload_tool.errors import Damaged, HotreloadError, NotForImage, Refused
from hotreload_tool.index import BadIndex
from hotreload_tool.live import NO_ID, ImageFacts, LiveState, from_image
from hotreload_tool.objectmap import ObjectMap
from hotreload_tool.watch.memory import Memory

MAP = objmap("a.o", fn("f", "1"), fn("g~a.o"), var("v"))
BUILD_ID = "12" * 20
HR_SELF, ARENA = 0x3100, (0x100000, 0x140000)

# ---- images from data --------------------------------------------------------------------------------------------


def hr_image(abi: int = ABI, arena: tuple[int, int] = ARENA, magic: int = 0x31474D49) -> bytes:
    return struct.pack("<IIiIQQQ", magic, abi, 0, 0, 0, *arena) + bytes(64)


def parts(build_id: str = BUILD_ID, maps: bytes | None = None, hr: bytes | None = None) -> dict[str, Section]:
    distance = struct.pack(
        "<q", HR_SELF - (0x200 + 24)
    )  # from the descriptor, behind a header of 12 and an owner of 12 bytes
    return {
        "build-id": Section(
            ".note.gnu.build-id",
            note(b"GNU", 3, bytes.fromhex(build_id)),
            type="NOTE",
            flags="A",
            align=4,
            address=0x100,
        ),
        "note": Section(
            ".note.hotreload", note(b"hotreload", 1, distance), type="NOTE", flags="A", align=4, address=0x200
        ),
        "text": Section(".text", bytes(0x100), flags="AX", align=16, address=0x1000),
        "slots": Section(".data.rel.ro", struct.pack("<QQ", 0x1080, 0x10A0), flags="AW", align=8, address=0x3000),
        "hr": Section(".data", hr_image() if hr is None else hr, flags="AW", align=8, address=HR_SELF),
        "bss": Section(".bss", type="NOBITS", size=64, flags="AW", align=8, address=0x4000),
        "map": Section(".hotreload.map", MAP.pack() if maps is None else maps, align=8),
    }


SYMBOLS = [
    Symbol("a.c", type="FILE"),
    Symbol("g", ".text", value=0xA0, size=8, type="FUNC"),
    Symbol("g~a.o", ".text", value=0x20, size=11, type="FUNC", visibility="HIDDEN"),
    Symbol("f.hr_slot", ".data.rel.ro", size=8, type="OBJECT", visibility="HIDDEN"),
    Symbol("g~a.o.hr_slot", ".data.rel.ro", value=8, size=8, type="OBJECT", visibility="HIDDEN"),
    Symbol("f", ".text", size=11, type="FUNC", binding="GLOBAL"),
    Symbol("v", ".bss", value=8, size=4, type="OBJECT", binding="GLOBAL"),
    Symbol("stdout@GLIBC_2.2.5", ".bss", value=16, size=8, type="OBJECT", binding="GLOBAL"),
    Symbol("puts@GLIBC_2.2.5"),
]


def small(without: str = "", symbols: list[Symbol] | None = None, kind: str = "EXEC", **changes: Any) -> bytes:
    sections = [s for key, s in parts(**changes).items() if key != without]
    return image(kind, sections, SYMBOLS if symbols is None else symbols)


@pytest.fixture
def write(tmp_path):
    def to(data: bytes, name: str = "prog") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return to


def codes(path: Path) -> list[str]:
    with pytest.raises(Refused) as caught:
        read_image(path)
    assert all(str(path) in str(r) for r in caught.value.refusals)
    return sorted(r.code for r in caught.value.refusals)


def test_an_image_made_of_data(write):
    facts = read_image(write(small()))
    assert (facts.build_id, facts.kind, facts.arena) == (BUILD_ID, "exec", (ARENA[0], ARENA[1] - ARENA[0]))
    assert facts.maps == [MAP] and facts.slots == {0x3000: 0x1080, 0x3008: 0x10A0}
    assert {s.name: s.address for s in facts.symbols if s.section == ".bss"} == {"v": 0x4008, "stdout": 0x4010}
    assert "puts" not in {s.name for s in facts.symbols} and "a.c" not in {s.name for s in facts.symbols}
    live = from_image(facts)
    assert (live.functions["f"].body, live.functions["g~a.o"].entry, live.functions["g~a.o"].body) == (
        0x1080,
        0x1020,
        0x10A0,
    )
    assert live.data["v"].address == 0x4008 and live.symbols["stdout"] == 0x4010


def test_what_cannot_be_patched_is_refused_with_all_reasons(write):
    assert codes(write(small("build-id"))) == ["no-build-id"]
    assert codes(write(small("map"))) == ["not-instrumented"]
    assert codes(write(small("note"))) == ["no-runtime"]
    assert codes(write(small(hr=hr_image(abi=ABI + 1)))) == ["abi"]
    bare = [Section(".text", b"\xc3", flags="AX", align=16, address=0x1000)]
    assert codes(write(image("EXEC", bare, [Symbol("f", ".text")]))) == ["no-build-id", "not-instrumented"]
    assert codes(write(relocatable(bare, [Symbol("f", ".text")]))) == ["not-linked"]


def test_the_best_version_of_a_symbol_is_taken(write):
    def at(name: str, value: int) -> Symbol:
        return Symbol(name, ".bss", value=value, size=4, type="OBJECT", binding="GLOBAL")

    for order in (1, -1):
        symbols = [*SYMBOLS, *[at("x@V1", 20), at("x@@V2", 24), at("y@V1", 28), at("y", 32)][::order]]
        found = {s.name: s.address for s in read_image(write(small(symbols=symbols))).symbols}
        assert (found["x"], found["y"]) == (0x4018, 0x4020)


@pytest.mark.parametrize(
    "change",
    [
        {"maps": b"\0" * 7 + b"x" * 100},
        {"maps": MAP.pack()[:-20]},
        {"hr": hr_image(magic=1)},
        {"hr": hr_image(arena=(0, 0))},
        {"hr": hr_image(arena=(2, 1))},
        {"hr": b"x"},
    ],
)
def test_damaged_content_is_damage(write, change):
    with pytest.raises(Damaged, match="prog"):
        read_image(write(small(**change)))


def test_files_that_are_no_images(write, tmp_path):
    for data in (b"", b"#!/bin/sh\n", b"\x7fELF", small()[:100], small()[:-100]):
        with pytest.raises(Damaged, match="prog"):
            read_image(write(data))
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "nowhere")


@settings(max_examples=300)
@given(st.integers(0, len(small()) - 1), st.integers(0, 255))
def test_no_changed_byte_raises_anything_but_what_is_promised(tmp_path_factory, at, value):
    data = bytearray(small())
    data[at] = value
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(data)
    try:
        from_image(read_image(path))
    except (Damaged, Refused):
        pass


# ---- images from the linker --------------------------------------------------------------------------------------

C = r"""
#include <stdio.h>
#include <stdint.h>
#define TEXT(x) #x
__thread long counter = 3;
static int hidden_number = 7;
int f_body(void) __asm__("f.hr_body") __attribute__((visibility("hidden")));
int f_body(void) { counter++; return hidden_number; }
__asm__(".pushsection .text.f,\"ax\"\n.globl f\n.type f,@function\nf: jmp *f.hr_slot(%rip)\n.size f,.-f\n.popsection\n"
        ".pushsection .data.rel.ro.hr_slot,\"aw\"\n.balign 8\n.globl f.hr_slot\n.hidden f.hr_slot\n.type f.hr_slot,@object\n"
        "f.hr_slot: .quad f.hr_body\n.size f.hr_slot,8\n.popsection\n"
        ".pushsection .hotreload.map,\"\",@progbits\n.balign 8\n.incbin \"map.bin\"\n.popsection\n"
        ".pushsection .note.hotreload,\"a\",@note\n.balign 4\n.long 10, 8, 1\n.asciz \"hotreload\"\n.balign 4\n"
        ".quad hr_self - .\n.popsection\n");
static uint8_t arena[1 << 16] __attribute__((aligned(4096)));
struct { uint32_t magic, abi; int32_t owner; uint32_t ready; const int *poll; uintptr_t start, end; } hr_self
  __attribute__((visibility("hidden"))) = {0x31474d49, HR_ABI, 0, 0, 0, (uintptr_t)arena, (uintptr_t)arena + sizeof arena};
extern int f(void);
int main(void) { fprintf(stdout, "%d\n", f()); return 0; }
"""
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


def link(folder: Path, *flags: str, name: str = "prog", source: str = C, m: ObjectMap | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "map.bin").write_bytes((m or objmap("a.o", fn("f"), var("counter", kind="tdata", size=8))).pack())
    (folder / "a.c").write_text(source)
    command = ["gcc", "-O1", f"-DHR_ABI={ABI}", "-Wl,--build-id=sha1", *flags, "a.c", "-o", name]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    return folder / name


@needs_gcc
@pytest.mark.parametrize(
    "flags, kind",
    [
        (("-no-pie", "-fno-pie"), "exec"),
        (("-pie", "-fPIE"), "pie"),
        (("-shared", "-fPIC"), "shared"),
        (("-static-pie", "-fPIE"), "pie"),
        (("-pie", "-fPIE", "-Wl,-z,pack-relative-relocs"), "pie"),
        (("-pie", "-fPIE", "-fuse-ld=gold"), "pie"),
    ],
)
def test_a_linked_image(tmp_path, flags, kind):
    try:
        path = link(tmp_path, *flags)
    except subprocess.CalledProcessError:
        pytest.skip(f"this toolchain does not link with {' '.join(flags)}")
    facts = read_image(path)
    live = from_image(facts)
    nm = {
        line.split()[2]: int(line.split()[0], 16)
        for line in subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
        if line[0] != " "
    }
    f = live.functions["f"]
    assert facts.kind == kind and (f.entry, f.slot, f.body) == (nm["f"], nm["f.hr_slot"], nm["f.hr_body"])
    assert facts.arena == (nm["arena"], 1 << 16) and live.arena_used_end == nm["arena"]
    assert facts.tls is not None and facts.tls.size >= 8 and live.data["counter"].address == nm["counter"]
    assert facts.build_id in subprocess.run(["readelf", "-n", path], capture_output=True, text=True, check=True).stdout
    assert live.symbols["main"] == nm["main"] and "f.hr_body" not in live.symbols
    if "-static-pie" not in flags:
        assert facts.needed[0] == "libc.so.6"
    if kind == "shared":
        assert "f" in facts.exported and "stdout" not in live.symbols
    if kind == "exec":
        assert "stdout" in live.symbols, "its copy of the library's variable"


@needs_gcc
def test_a_stripped_image_is_refused_and_fits_its_baseline(tmp_path):
    path = link(tmp_path)
    assert codes(link(tmp_path, "-s", name="bare")) == ["no-symbols"]
    subprocess.run(["strip", path, "-o", tmp_path / "stripped"], check=True)
    store = Store(tmp_path / "store")
    build_id = store.file_image(path, "prog")
    assert store.file_image(tmp_path / "stripped", "prog") == build_id
    assert read_image(store.lookup(build_id)).symbols, "the whole one is kept"


@needs_gcc
def test_a_baseline_comes_back_from_a_running_process(tmp_path):
    path = link(tmp_path, source=C.replace("return 0;", "getchar(); return 0;"))
    with subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        build_id = read_build_id(path)
        path.unlink()
        store = Store(tmp_path / "store")
        try:
            assert store.file_image(f"/proc/{process.pid}/exe", "prog") == build_id
        finally:
            process.communicate(b"\n", timeout=10)
    assert from_image(store.load(build_id)).functions["f"].patchable


# ---- the store: images -------------------------------------------------------------------------------------------


@pytest.fixture(params=[Store, Memory])
def store(tmp_path, request) -> Store:
    """A store, and one that remembers what it read: nobody should see a difference."""
    return request.param(tmp_path / "hr")


def build_id_of(number: int) -> str:
    return f"{number:040x}"


def filed(store: Store, write: Any, number: int = 1, program: str = "build/prog") -> str:
    build_id: str = store.file_image(write(small(build_id=build_id_of(number)), f"prog{number}"), program)
    return build_id


def test_an_image_is_filed_found_and_loaded(store, write):
    path = write(small())
    build_id = store.file_image(path, "build/prog")
    copy = store.lookup(build_id)
    assert build_id == BUILD_ID and copy.read_bytes() == path.read_bytes() and not os.path.samefile(copy, path)
    assert copy.stat().st_nlink == 1
    facts = store.load(build_id)
    assert facts.maps == [MAP] and facts.path == str(copy)
    assert store.programs() == {"build/prog": [BUILD_ID]}
    assert store.lookup("00" * 20) is None
    with pytest.raises(NotForImage, match="no baseline"):
        store.load("00" * 20)


def test_writing_over_the_image_leaves_the_baseline_alone(store, write):
    path = write(small())
    before = path.read_bytes()
    store.file_image(path, "p")
    with open(path, "r+b") as file:
        file.write(b"xxxx")
    assert store.lookup(BUILD_ID).read_bytes() == before


def test_filing_again_changes_nothing_but_the_order(store, write):
    first, second = filed(store, write, 1), filed(store, write, 2)
    inode = store.lookup(first).stat().st_ino
    assert store.programs() == {"build/prog": [first, second]}
    filed(store, write, 1)
    assert store.programs() == {"build/prog": [second, first]} and store.lookup(first).stat().st_ino == inode
    assert [p.name for p in (store.root / "baselines").iterdir() if p.name.startswith(".")] == []


def test_another_image_under_the_same_build_id_is_refused(store, write):
    store.file_image(write(small()), "p")
    with pytest.raises(Refused, match="build-id-reused|another image was filed"):
        store.file_image(write(small(maps=objmap("a.o", fn("f", "2"), fn("g~a.o"), var("v")).pack())), "p")


def test_what_cannot_be_filed_leaves_nothing(store, write):
    for data, error in (
        (small("map"), Refused),
        (small("build-id"), Refused),
        (b"no", Damaged),
        (small(maps=b"junk" * 10), Damaged),
    ):
        with pytest.raises(error, match="prog"):
            store.file_image(write(data), "p")
    with pytest.raises(FileNotFoundError):
        store.file_image(store.root / "nowhere", "p")
    assert list((store.root / "baselines").iterdir()) == [] and store.programs() == {}


def test_no_garbage_is_looked_for_while_an_image_is_read(write, tmp_path, monkeypatch):
    seen: list[bool] = []
    symbols = baseline._symbols
    monkeypatch.setattr(baseline, "_symbols", lambda image: (seen.append(gc.isenabled()), symbols(image))[1])
    read_image(write(small()))
    assert seen == [False] and gc.isenabled()
    (tmp_path / "no").write_bytes(b"no")
    with pytest.raises(Damaged):
        read_image(tmp_path / "no")
    assert gc.isenabled()


def test_the_live_state_of_a_filed_image_is_looked_up(store, write, monkeypatch):
    build_id = store.file_image(write(small()), "p")
    wanted = from_image(store.load(build_id))
    monkeypatch.setattr(baseline, "read_image", lambda path: pytest.fail("parsed again"))
    live = Store(store.root).live_state(build_id)      # a resident session keeps the state, and needs no index
    assert [live.functions[f] for f in ("f", "g~a.o")] == [wanted.functions[f] for f in ("f", "g~a.o")]
    assert live.data["v"] == wanted.data["v"] and live.maps["a.o"] == MAP and "h" not in live.functions


@pytest.mark.parametrize("damage", ["missing", "empty", "no index", "cut short", "another image's", "header", "checksums",
                                    "version"])
def test_an_index_that_does_not_fit_is_made_anew(store, write, damage, monkeypatch):
    build_id = store.file_image(write(small()), "p")
    path = store.root / "baselines" / build_id / "index"
    good = path.read_bytes()
    other = store.file_image(write(small(build_id="34" * 20), "other"), "p")
    changed = {"empty": b"", "no index": b"{}", "cut short": good[:-9], "header": good[:60] + b"!" + good[61:],
               "another image's": (store.root / "baselines" / other / "index").read_bytes(),
               "checksums": good.replace(good[good.index(b"}", good.index(b'"sums"')) + 1:][:4], b"\xff\xff\xff\xfe", 1),
               "version": good.replace(b"HRINDEX\1", b"HRINDEX\0")}
    if damage == "missing":
        path.unlink()
    else:
        assert changed[damage] != good
        path.write_bytes(changed[damage])
    live = Store(store.root).live_state(build_id)
    assert path.read_bytes() == good and live.functions["f"].body == 0x1080


def test_an_index_that_turns_out_to_be_damaged_is_made_anew(store, write):
    build_id = store.file_image(write(small()), "p")
    path = store.root / "baselines" / build_id / "index"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))             # found out when that page is asked for
    looked_up = []

    def work() -> int | None:
        looked_up.append(path.exists())
        return Store(store.root).live_state(build_id).functions["f"].body

    assert store.with_index(build_id, work) == 0x1080 and looked_up == [True, False] and path.read_bytes() == good

    def never() -> None:
        raise BadIndex("page 0 is damaged")

    with pytest.raises(Damaged, match="page 0 is damaged; remove it"):
        store.with_index(build_id, never)


def test_an_image_that_is_filed_and_the_same_file_is_not_read_again(store, write):
    path = write(small())
    assert store.filed(path) is None
    build_id = store.file_image(path, "p")
    assert store.filed(path) == build_id
    os.utime(path, ns=(1, 1))
    assert store.filed(path) is None and store.filed(write(b"no", "text")) is None


def test_a_store_that_moved_still_works(store, write):
    store.file_image(write(small()), "p")
    moved = Store(store.root.rename(store.root.with_name("moved")))
    assert moved.load(BUILD_ID).path == str(moved.lookup(BUILD_ID))


def test_a_torso_left_by_a_crash_is_filed_again(store, write):
    path = write(small())
    store.file_image(path, "p")
    os.truncate(store.lookup(BUILD_ID), 10)
    assert store.lookup(BUILD_ID) is None
    store.file_image(path, "p")
    assert store.lookup(BUILD_ID).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["../x", "", "AB", "a", "0" * 66, "12\n"])
def test_a_build_id_is_no_path(store, name):
    with pytest.raises(NotForImage, match="is not a build-id"):
        store.lookup(name)


def _file_in_process(root: str, path: str) -> str:
    return Store(root).file_image(path, "p")


def test_many_at_once(store, write):
    path = write(small())
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert set(pool.starmap(_file_in_process, [(str(store.root), str(path))] * 8)) == {BUILD_ID}
    assert [p.name for p in (store.root / "baselines").iterdir()] == [BUILD_ID]
    assert store.load(BUILD_ID).maps == [MAP]


# ---- the store: generations --------------------------------------------------------------------------------------


def patch_for(store: Store, build_id: str, content: str) -> bundle.Bundle:
    """A bundle that gives f new content, for the state the store knows now."""
    live = store.live_state(build_id)
    f, start = live.functions["f"], live.arena_used_end
    entry = {
        "build_id": build_id,
        "kind": live.kind,
        "generation": live.generation + 1,
        "parent": live.id,
        "arena": [start, start + 4096],
        "changed": [
            {
                "name": "f",
                "object": "a.o",
                "slot": f.slot,
                "old_body": f.body,
                "old_size": f.size,
                "body": start,
                "size": 8,
            }
        ],
        "added": [],
        "removed": [],
        "data": {"added": [], "updated": [], "bound": []},
        "notes": [],
    }
    maps = [objmap("a.o", fn("f", content), fn("g~a.o"), var("v"))]
    return bundle.build(
        "build/prog", [ImagePatch(entry, content.encode(), maps)], created="2026-11-22T10:00:00Z", tool="0.1.0"
    )


def test_a_chain_grows_and_is_the_live_state(store, write):
    build_id = filed(store, write)
    assert store.chain(build_id) == [] and store.live_state(build_id).id == NO_ID
    for generation in range(1, 12):
        made = patch_for(store, build_id, f"version {generation}")
        path = store.append(build_id, made)
        assert path.name == f"prog.{generation}.hotpatch" and bundle.read(path) == made
    assert [p.name for p in store.chain(build_id)] == [f"prog.{g}.hotpatch" for g in range(1, 12)]
    live = store.live_state(build_id)
    assert live.generation == 11 and live.functions["f"].generation == 11 and live.functions["g~a.o"].generation == 0
    assert store.live_state(build_id, 3).generation == 3 and store.live_state(build_id, 0).generation == 0
    assert [b.manifest["images"][0]["generation"] for b in store.bundles(build_id)] == list(range(1, 12))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["mine", "theirs", "withdrawn", "again"]), max_size=8))
def test_what_is_remembered_is_what_others_left(tmp_path_factory, done):
    """One store remembers, another one works in the same directory: after each step both know the same state."""
    root = tmp_path_factory.mktemp("shared")
    (root / "prog").write_bytes(small())
    mine, theirs = Memory(root / "hr"), Store(root / "hr")
    build_id = mine.file_image(root / "prog", "build/prog")
    for number, step in enumerate(done):
        if step in ("mine", "theirs"):
            chosen = mine if step == "mine" else theirs
            chosen.append(build_id, patch_for(chosen, build_id, f"version {number}"))
        elif theirs.chain(build_id):
            theirs.withdraw(build_id, theirs.chain(build_id)[-1])
            if step == "again":
                theirs.append(build_id, patch_for(theirs, build_id, f"another {number}"))
        assert mine.chain(build_id) == theirs.chain(build_id) and mine.bundles(build_id) == theirs.bundles(build_id)
        assert what_lives(mine.live_state(build_id)) == what_lives(theirs.live_state(build_id))


def what_lives(live: LiveState) -> dict[str, Any]:
    """All of a state, however it is known: by lookup, or because the image was read."""
    found = {f.name: getattr(live, f.name) for f in dataclasses.fields(LiveState) if f.name not in ("facts", "index")}
    return {**found, "facts": {f.name: getattr(live.facts, f.name) for f in dataclasses.fields(ImageFacts)}}


def test_two_cannot_both_be_the_next_generation(store, write):
    build_id = filed(store, write)
    mine, theirs = patch_for(store, build_id, "mine"), patch_for(store, build_id, "theirs")
    store.append(build_id, theirs)
    with pytest.raises(NotForImage, match="another patch was made in the meantime"):
        store.append(build_id, mine)
    assert bundle.read(store.chain(build_id)[0]) == theirs


def test_a_bundle_goes_only_into_its_own_chain(store, write):
    one, two = filed(store, write, 1), filed(store, write, 2)
    with pytest.raises(NotForImage, match="brings nothing"):
        store.append(two, patch_for(store, one, "x"))
    assert store.chain(two) == []


def test_a_chain_with_a_gap_or_a_stranger_is_damage(store, write):
    build_id = filed(store, write)
    for content in "123":
        store.append(build_id, patch_for(store, build_id, content))
    second = store.chain(build_id)[1]
    moved = second.rename(second.with_name("prog.x.hotpatch"))
    with pytest.raises(Damaged, match="does not belong"):
        store.chain(build_id)
    moved.unlink()
    with pytest.raises(Damaged, match="generation 2: is missing"):
        store.live_state(build_id)


def test_a_damaged_bundle_in_a_chain_is_told(store, write):
    build_id = filed(store, write)
    path = store.append(build_id, patch_for(store, build_id, "1"))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(Damaged, match=r"prog\.1\.hotpatch"):
        store.live_state(build_id)


def test_the_lock_waits_only_so_long_and_is_given_back(store, write):
    build_id = filed(store, write)
    made = patch_for(store, build_id, "x")
    impatient = Store(store.root, lock_seconds=0.05)
    with store.locked(build_id):
        with pytest.raises(HotreloadError, match="another build holds this lock"):
            impatient.append(build_id, made)
        with store.locked(build_id):
            store.append(build_id, made)
    assert len(impatient.chain(build_id)) == 1
    impatient.append(build_id, patch_for(store, build_id, "y"))


def test_a_lock_held_in_one_thread_keeps_others_out(store, write):
    build_id = filed(store, write)
    store.lock_seconds, failures = 0.05, []

    def other() -> None:
        try:
            with store.locked(build_id):
                pass
        except HotreloadError as e:
            failures.append(e)

    with store.locked(build_id):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(10)
    assert len(failures) == 1


def _append_in_process(root: str, build_id: str, number: int) -> bool:
    """As `scons hotpatch` does: plan and append under one lock."""
    store = Store(root)
    with store.locked(build_id):
        store.append(build_id, patch_for(store, build_id, f"by {number}"))
    return True


def test_appending_from_several_processes_keeps_one_order(store, write):
    build_id = filed(store, write)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.starmap(_append_in_process, [(str(store.root), build_id, n) for n in range(6)])
    assert store.live_state(build_id).generation == 6


def test_payload_files_are_read_only_and_named_by_content(store):
    path = store.payload(b"code")
    assert path.name == "5694d08a2e53ffcae0c3103e5ad6f6076abd960eb1f8a56577040bc1028f702b.so"
    assert path.stat().st_mode & 0o777 == 0o444 and path.read_bytes() == b"code"
    inode = path.stat().st_ino
    assert store.payload(b"code").stat().st_ino == inode, "a sound file is never replaced"


# ---- the store: pruning ------------------------------------------------------------------------------------------


def test_prune_keeps_what_runs_and_what_is_recent(store, write):
    ids = [filed(store, write, n) for n in range(1, 6)]
    other = filed(store, write, 9, "build/other")
    for build_id in ids[:2]:
        store.append(build_id, patch_for(store, build_id, "x"))
    assert store.prune(running={ids[0]}, keep_recent=2) == ids[1:3]
    assert store.programs() == {"build/prog": [ids[0], *ids[3:]], "build/other": [other]}
    assert store.live_state(ids[0]).generation == 1 and store.chain(ids[1]) == []
    assert store.prune(running=set(), keep_recent=0) == sorted([ids[0], *ids[3:], other])
    assert list((store.root / "baselines").iterdir()) == [] and store.programs() == {}


def test_prune_leaves_alone_what_a_build_works_on(store, write):
    build_id = filed(store, write)
    held = Store(store.root)
    with held.locked(build_id):
        assert store.prune(set(), 0) == []
    assert store.prune(set(), 0) == [build_id]


@pytest.mark.parametrize("damage", [b"", b"c0de", b"code and more"])
def test_a_payload_file_that_was_changed_is_made_anew(store, damage):
    path = store.payload(b"code")
    path.chmod(0o644)
    path.write_bytes(damage)
    assert store.payload(b"code") == path
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"code", 0o444)


def test_prune_drops_old_payloads_and_torsos_that_nobody_needs(store, write):
    build_id = filed(store, write)
    store.append(build_id, patch_for(store, build_id, "used"))
    used, unused, young = store.payload(b"used"), store.payload(b"unused"), store.payload(b"young")
    torso = store.root / "baselines" / ".tmp-crashed"
    torso.mkdir()
    for path in (used, unused, torso):
        os.utime(path, (0, 0))
    store.prune({build_id}, 1)
    assert used.exists() and young.exists() and not unused.exists() and not torso.exists()


def test_prune_drops_what_killed_writers_left(store, write):
    build_id = filed(store, write)
    store.append(build_id, patch_for(store, build_id, "1"))
    places = [store.root / p for p in (f"chains/{build_id}/.prog.2.hotpatch.x", "payloads/.00.so.x", "programs/.p.json.x",
                                       f"baselines/{build_id}/.index.x")]
    for path in places:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    assert store.prune({build_id}, 1) == [] and all(path.exists() for path in places)     # somebody may be writing them
    for path in places:
        os.utime(path, (0, 0))
    store.prune({build_id}, 1)
    assert not any(path.exists() for path in places)
    assert len(store.chain(build_id)) == 1 and store.lookup(build_id) is not None


def test_a_bundle_is_on_trial_until_it_is_known_what_became_of_it(store, write):
    build_id = filed(store, write)
    assert store.on_trial(build_id) is None
    first = store.append(build_id, patch_for(store, build_id, "1"))
    assert store.on_trial(build_id) == first
    store.keep(build_id, first)
    assert (store.on_trial(build_id), store.chain(build_id)) == (None, [first])
    second = store.append(build_id, patch_for(store, build_id, "2"))
    store.keep(build_id, first)
    assert store.on_trial(build_id) == second
    store.withdraw(build_id, second)
    assert (store.on_trial(build_id), store.chain(build_id)) == (None, [first])


def test_a_note_without_its_bundle_says_nothing(store, write, monkeypatch):
    """The tool was killed between the two."""
    build_id = filed(store, write)
    first = store.append(build_id, patch_for(store, build_id, "1"))
    store.keep(build_id, first)

    def killed(path: Path, made: bundle.Bundle) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(bundle, "write", killed)
        store.append(build_id, patch_for(store, build_id, "2"))
    assert (store.on_trial(build_id), store.chain(build_id)) == (None, [first])


def test_uninstrumented_objects_are_noted_together_with_the_image(store, write):
    for n, plain in enumerate(({"a.o": "1"}, {"a.o": "2"})):
        build_id = store.file_image(write(small(), f"prog{n}"), "build/prog", plain)
        assert store.plain(build_id) == plain
    assert store.plain(store.file_image(write(small()), "build/prog")) == {"a.o": "2"}


def test_prune_of_an_empty_store(store):
    assert store.prune(set(), 3) == [] and store.programs() == {}
