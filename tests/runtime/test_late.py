"""Libraries that are loaded after a patch take what they missed, and what they could not take is said."""
from __future__ import annotations

import shutil
import signal
import struct
import sys
from pathlib import Path

import pytest
from runtimetools import (
    HOST,
    SANITIZE,
    SOURCES,
    Image,
    Payload,
    Recipe,
    build,
    environment,
    make_payload,
    maps,
    start,
    wait_for_agent,
)

from hotreload_tool import abi, guard, process
from livetools import Program

ZERO = "0" * 64


@pytest.fixture(scope="module")
def plugin(folder: Path) -> Image:
    """A library whose constructor calls its patchable function and keeps what it gave: 50 as built."""
    return build(folder, "libplugin.so", [SOURCES / "library.c"], flags=["-fPIC", "-DCONSTRUCTS"], link=["-shared"])


def value_payload(folder: Path, image: Image, n: int, previous: Payload | None = None, **options: object) -> Payload:
    source = f"extern int library_counter; int library_new(void) {{ return {n} + library_counter++; }}"
    return make_payload(folder, Recipe(image, source, {"library_value": "library_new"}, previous=previous,
                                       **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def thousand(folder: Path, plugin: Image) -> Payload:
    return value_payload(folder, plugin, 1000)


@pytest.fixture(scope="module")
def million(folder: Path, plugin: Image, thousand: Payload) -> Payload:
    return value_payload(folder, plugin, 1000000, thousand)


def later(pid: int, *payloads: Payload | Path, **options: object) -> process.ApplyResult:
    return process.apply(pid, [p.path if isinstance(p, Payload) else p for p in payloads], for_later=True,
                         **options)  # type: ignore[arg-type]


def refused(pid: int, *payloads: Payload, **options: object) -> process.AgentError:
    before = process.status(pid).document
    with pytest.raises(process.AgentError) as caught:
        later(pid, *payloads, **options)
    assert process.status(pid).document == before
    return caught.value


def image_of(pid: int, image: Image) -> process.LiveImage:
    return next(i for i in process.status(pid).images if i.build_id == image.build_id.hex())


def load(program: Program, image: Image | Path) -> None:
    program.ask(f"load {image.path if isinstance(image, Image) else image}", r"^loaded\n")


def unload(program: Program, image: Image) -> None:
    program.ask("unload", r"^unloaded 0\n")
    assert str(image.path) not in {m.file for m in maps(program.pid)}


# ---- loaded after the patch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["now", "quiescent"])
def test_a_library_takes_what_it_missed(target: Image, plugin: Image, thousand: Payload, million: Payload, when: str) -> None:
    with start(target) as program:
        result, = later(program.pid, thousand, when=when).images
        assert (result.waiting, result.already, result.functions_live, result.generation) == (True, False, 0, 1)
        later(program.pid, million, when=when)
        status = process.status(program.pid)
        assert [i.build_id for i in status.images] == [target.build_id.hex()]
        kept, = status.kept
        assert (kept.build_id, kept.generation, kept.ids) == (plugin.build_id.hex(), 2, [thousand.id.hex(), million.id.hex()])
        load(program, plugin)
        program.ask("library", r"^library 2000010\n", reject="60|2010|1000060")   # the constructor ran in new code as well
        image = image_of(program.pid, plugin)
        assert (image.generation, image.id, image.missed) == (2, million.id.hex(), None)
        assert [p.generation for p in image.payloads] == [2, 1]
        assert not [m for m in maps(program.pid) if "w" in m.permissions and "x" in m.permissions]
        assert later(program.pid, thousand).already and later(program.pid, million).already
        program.ask("value", r"^value 101\n")
        assert program.finish() == 0


def test_unloaded_and_loaded_again(target: Image, plugin: Image, thousand: Payload, million: Payload) -> None:
    with start(target) as program:
        load(program, plugin)
        program.ask("library", r"^library 90\n")                   # 40 and what the constructor found, 50
        process.apply(program.pid, [thousand.path])
        for _ in range(3):
            unload(program, plugin)
            load(program, plugin)
            program.ask("library", r"^library 2010\n", reject="90")
        process.apply(program.pid, [million.path])
        program.ask("library", r"^library 1001011\n", reject=r"library 2011")
        unload(program, plugin)
        load(program, plugin)
        program.ask("library", r"^library 2000010\n", reject=r"library 2010\n")
        assert image_of(program.pid, plugin).generation == 2


def test_without_being_asked_nothing_is_kept(target: Image, plugin: Image, thousand: Payload) -> None:
    with start(target) as program:
        for dry_run in (False, True):
            with pytest.raises(process.AgentError) as caught:
                process.apply(program.pid, [thousand.path], dry_run=dry_run)
            assert caught.value.code is abi.Code["WRONG_IMAGE"]
        assert later(program.pid, thousand, dry_run=True).images[0].waiting
        assert process.status(program.pid).kept == []
        load(program, plugin)
        program.ask("library", r"^library 90\n")


def test_generations_follow_each_other(target: Image, folder: Path, plugin: Image, thousand: Payload, million: Payload) -> None:
    other = value_payload(folder, plugin, 7, thousand, parent=b"\7" * 32)
    with start(target) as program:
        assert refused(program.pid, million).code is abi.Code["OUT_OF_ORDER"]
        later(program.pid, thousand)
        error = refused(program.pid, other)
        assert error.code is abi.Code["OUT_OF_ORDER"] and "with another history" in error.detail
        assert later(program.pid, thousand).already
        assert refused(program.pid, million, million).code is abi.Code["BAD_REQUEST"]
        later(program.pid, million)
        load(program, plugin)
        program.ask("library", r"^library 2000010\n")


def test_program_and_absent_library_together(target: Image, folder: Path, plugin: Image, new_value: Payload,
                                             thousand: Payload, million: Payload) -> None:
    """All or none: neither a wrong payload of the program nor a wrong one of the library leaves half."""
    wrong = make_payload(folder, Recipe(target, "int value_new(void) { return 6; }", {"value": "value_new"},
                                        old_targets={"value": target.symbols["twice.hr_body"]}))
    with start(target) as program:
        assert refused(program.pid, thousand, wrong).code is abi.Code["UNEXPECTED_SLOT"]
        assert refused(program.pid, new_value, million, when="quiescent").code is abi.Code["OUT_OF_ORDER"]
        program.ask("value", r"^value 101\n")
        result = later(program.pid, new_value, thousand, when="quiescent")
        assert [(i.waiting, i.functions_live) for i in result.images] == [(False, 1), (True, 0)]
        program.ask("value", r"^value 1101\n", reject="102")
        load(program, plugin)
        program.ask("library", r"^library 2010\n", reject="90")
        assert later(program.pid, new_value, thousand).already


def test_a_program_is_nothing_to_keep(target: Image, thousand: Payload, tmp_path: Path) -> None:
    """A payload with absolute addresses is a program's, and no program is loaded later."""
    raw = bytearray(thousand.path.read_bytes())
    raw[16] = 2         # e_type: ET_EXEC
    absolute = tmp_path / "absolute.so"
    absolute.write_bytes(raw)
    with start(target) as program:
        with pytest.raises(process.AgentError) as caught:
            later(program.pid, absolute)
        assert caught.value.code is abi.Code["WRONG_IMAGE"]


# ---- what can't be taken ------------------------------------------------------------------------------------------


def test_a_file_that_is_gone_or_changed(target: Image, plugin: Image, thousand: Payload, million: Payload,
                                        tmp_path: Path) -> None:
    """The library stays as it was built, all of it, and says why; the same patches can be applied to it then."""
    copy = tmp_path / "million.so"
    shutil.copy(million.path, copy)
    with start(target) as program:
        later(program.pid, thousand)
        later(program.pid, copy)
        copy.write_bytes(copy.read_bytes()[:-1] + b"\xff")
        load(program, plugin)
        program.ask("library", r"^library 90\n", reject="010")
        image = image_of(program.pid, plugin)
        assert (image.generation, image.id) == (0, ZERO)
        assert image.missed == {"generation": 2, "reason":
                                "the file of generation 2 is not as it was when the process was given it"}
        unload(program, plugin)
        copy.unlink()
        load(program, plugin)
        program.ask("library", r"^library 90\n", reject="010")
        missed = image_of(program.pid, plugin).missed
        assert missed and missed["reason"] == "the file of generation 2 can't be opened: No such file or directory"
        first, = later(program.pid, thousand).images
        assert (first.already, first.functions_live, first.generation) == (False, 1, 1)
        program.ask("library", r"^library 1051\n", reject="91")
        assert image_of(program.pid, plugin).missed
        later(program.pid, million)
        program.ask("library", r"^library 1000052\n", reject="1052")
        assert image_of(program.pid, plugin).missed is None
        unload(program, plugin)
        load(program, plugin)                           # from the file it was given last
        program.ask("library", r"^library 2000010\n")


def test_objects_that_code_initialises_come_after_the_librarys_own(target: Image, plugin: Image, thousand: Payload,
                                                                   tmp_path: Path) -> None:
    data = bytearray(thousand.path.read_bytes())
    header = data.index(abi.PAYLOAD_MAGIC.to_bytes(8, "little"))
    struct.pack_into("<Q", data, header + abi.PAYLOAD_TABLES["init_array"] + 8, 1)
    bringing = tmp_path / "bringing.so"
    bringing.write_bytes(data)
    with start(target) as program:
        later(program.pid, bringing)
        load(program, plugin)
        program.ask("library", r"^library 90\n", reject="010")
        missed = image_of(program.pid, plugin).missed
        assert missed and missed["generation"] == 1 and "the library's own are not made yet" in str(missed["reason"])


def test_a_file_without_a_name(target: Image, plugin: Image, thousand: Payload, tmp_path: Path) -> None:
    copy = tmp_path / "unlinked.so"
    shutil.copy(thousand.path, copy)
    with start(target) as program, open(copy, "rb") as file:
        copy.unlink()
        unnamed = Path(f"/proc/self/fd/{file.fileno()}")
        with pytest.raises(process.AgentError) as caught:
            later(program.pid, unnamed)
        assert caught.value.code is abi.Code["UNSUPPORTED"] and "no name" in caught.value.detail
        load(program, plugin)
        process.apply(program.pid, [unnamed])           # where it is loaded no name is needed
        program.ask("library", r"^library 1050\n")
        unload(program, plugin)
        load(program, plugin)
        program.ask("library", r"^library 90\n", reject="2010")
        assert image_of(program.pid, plugin).missed == {
            "generation": 1, "reason": "the file of generation 1 can't be opened: it had no name"}


def test_another_build_is_another_library(target: Image, library: Image, plugin: Image, thousand: Payload) -> None:
    with start(target) as program:
        later(program.pid, thousand)
        load(program, library)
        program.ask("library", r"^library 50\n")
        assert image_of(program.pid, library).missed is None


STEPS = ("TRANSACTION", "HEADERS", "HOLD", "RECORD", "COPY", "COPY_WRITE", "COPY_SEAL", "MAP", "MAP_BSS", "IMPORT",
         "RELOCATE", "SEAL", "UNWIND", "TARGETS", "OPEN")


def test_steps_that_fail_while_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    image = build(folder, "faulty_late", [SOURCES / "target.c"], runtime_flags=("-DHR_FAULTS",))
    library = build(folder, "libfaulty_late.so", [SOURCES / "library.c"], flags=["-fPIC"], runtime_flags=("-DHR_FAULTS",),
                    link=["-shared"])
    source = """
    #include <stdlib.h>
    static char large[8192];
    int library_new(void) { large[77] = 77; return atoi("77") + large[5]; }
    """
    payload = make_payload(folder, Recipe(library, source, {"library_value": "library_new"}))
    fault = tmp_path / "fault"
    fault.write_text("")
    with start(image, HR_FAULT_FILE=str(fault)) as program:
        later(program.pid, payload)
        for step in STEPS:
            fault.write_text(f"{step}:fail:0")
            load(program, library)
            program.ask("library", r"^library 50\n", reject="77")
            missed = image_of(program.pid, library).missed
            assert missed and missed["generation"] == 1 and "generation 1 could not be applied: " in missed["reason"], step
            unload(program, library)
            fault.write_text("")
            load(program, library)
            program.ask("library", r"^library 77\n", reject="50")
            assert image_of(program.pid, library).missed is None
            unload(program, library)


# ---- back again -----------------------------------------------------------------------------------------------------


def test_what_was_reverted_does_not_come_back(target: Image, plugin: Image, thousand: Payload, million: Payload) -> None:
    with start(target) as program:
        load(program, plugin)
        process.apply(program.pid, [thousand.path])
        process.apply(program.pid, [million.path])
        process.revert(program.pid, plugin.build_id.hex(), 1)
        unload(program, plugin)
        load(program, plugin)
        program.ask("library", r"^library 2010\n", reject="000010")
        unload(program, plugin)
        result = process.revert(program.pid, plugin.build_id.hex(), 0).images[0]      # while it is not loaded
        assert (result.waiting, result.generation, result.already) == (True, 0, False)
        load(program, plugin)
        program.ask("library", r"^library 90\n", reject="010")
        assert process.status(program.pid).kept == []
        later(program.pid, thousand)
        program.ask("library", r"^library 1051\n", reject="91")


def test_reverting_what_was_never_kept(target: Image, plugin: Image, thousand: Payload) -> None:
    with start(target) as program:
        with pytest.raises(process.AgentError) as caught:
            process.revert(program.pid, plugin.build_id.hex(), 0)
        assert caught.value.code is abi.Code["WRONG_IMAGE"]
        later(program.pid, thousand)
        with pytest.raises(process.AgentError) as caught:
            process.revert(program.pid, plugin.build_id.hex(), 2)
        assert caught.value.code is abi.Code["OUT_OF_ORDER"]
        assert process.revert(program.pid, plugin.build_id.hex(), 1).already


@pytest.fixture(scope="module")
def crashing(folder: Path) -> Image:
    return build(folder, "crashes_late", [SOURCES / "crashes.c"])


@pytest.fixture(scope="module")
def faulty(folder: Path, crashing: Image) -> Payload:
    return make_payload(folder, Recipe(crashing, "int value_new(void) { return *(volatile int *)16; }", {"value": "value_new"}))


def test_a_guard_takes_back_what_is_kept(crashing: Image, faulty: Payload, plugin: Image, thousand: Payload) -> None:
    with start(crashing) as program:
        later(program.pid, faulty, thousand, guard=600.0)
        assert [k.generation for k in process.status(program.pid).kept] == [1]
        program.ask("safely", r"^recovered from 11 after 1, blocked 0\n")
        said = guard.read(program.pid)
        assert said and said["reverted"]
        assert process.status(program.pid).kept == []
        program.ask(f"load {plugin.path}", r"^loaded 1\n")
        assert image_of(program.pid, plugin).generation == 0


def test_a_guard_does_not_part_a_program_from_a_library_that_came(crashing: Image, faulty: Payload, plugin: Image,
                                                                  thousand: Payload) -> None:
    """The library has taken the patch for good: it is not taken back in half."""
    with start(crashing) as program:
        later(program.pid, faulty, thousand, guard=600.0)
        program.ask(f"load {plugin.path}", r"^loaded 1\n")
        assert image_of(program.pid, plugin).generation == 1
        program.send("value\n")
        assert program.wait() == -signal.SIGSEGV
        said = guard.read(program.pid)
        assert said and not said["reverted"] and "was loaded meanwhile" in said["problem"]


# ---- where it is loaded -----------------------------------------------------------------------------------------------


def test_in_a_child(target: Image, plugin: Image, thousand: Payload, million: Payload, sockets: Path) -> None:
    with start(target) as program:
        later(program.pid, thousand)
        child = int(program.ask("fork", r"^child (\d+)\n")[1])
        wait_for_agent(child)
        later(child, million)
        load(program, plugin)
        program.ask("library", r"^library 2000010\n", reject="2010$")
        assert image_of(child, plugin).generation == 2
        program.ask("exit", r"^child ended")
        load(program, plugin)
        program.ask("library", r"^library 2010\n", reject="90")


def test_in_a_program_that_polls(folder: Path, polling: Image, plugin: Image, thousand: Payload) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with start(polling) as program, ThreadPoolExecutor(1) as pool:
        future = pool.submit(later, program.pid, thousand)
        while not future.done():
            program.ask("poll", r"^poll 0\n")
        assert future.result().images[0].waiting
        load(program, plugin)
        program.ask("library", r"^library 2010\n", reject="90")


def test_beside_a_library_that_serves_the_process(library: Image, plugin: Image, thousand: Payload) -> None:
    with Program([sys.executable, "-c", HOST], env=environment()) as program:
        program.expect(r"^ready\n")
        load(program, library)
        later(program.pid, thousand)
        load(program, plugin)
        program.ask("library", r"^library 2010\n", reject="90")


def test_under_asan(folder: Path, tmp_path: Path) -> None:
    flags = tuple(SANITIZE)
    image = build(folder, "asan_late", [SOURCES / "target.c"], flags=SANITIZE, runtime_flags=flags, link=SANITIZE)
    library = build(folder, "libasan_late.so", [SOURCES / "library.c"], flags=["-fPIC", *SANITIZE], runtime_flags=flags,
                    link=["-shared", *SANITIZE])
    payload = value_payload(folder, library, 1000)
    with start(image, ASAN_OPTIONS="detect_leaks=0") as program:
        later(program.pid, payload)
        for _ in range(3):
            load(program, library)
            program.ask("library", r"^library 1010\n")
            program.ask("unload", r"^unloaded 0\n")
        process.revert(program.pid, library.build_id.hex(), 0)
        load(program, library)
        program.ask("library", r"^library 50\n")
        assert program.finish() == 0


# ---- at any moment --------------------------------------------------------------------------------------------------------


def apply_once_it_can(pid: int, ours: Payload, theirs: Payload, when: str) -> None:
    """The library comes and goes faster than the agent may be willing to start anew; then it says so."""
    while True:
        try:
            later(pid, ours, theirs, when=when, timeout=60)
            return
        except process.AgentError as e:
            assert e.code in (abi.Code["BUSY"], abi.Code["WRONG_IMAGE"]), e


@pytest.mark.parametrize("when", ["now", "quiescent"])
def test_patches_and_loading_do_not_miss_each_other(folder: Path, library: Image, when: str) -> None:
    """A thread notes the program's version, loads the library, and finds it as new at least. One request has both."""
    image = build(folder, "loads", [SOURCES / "loads.c"])
    ours: Payload | None = None
    theirs: Payload | None = None
    with start(image) as program:
        program.send(f"{library.path}\n")
        for n in range(1, 13):
            ours = make_payload(folder, Recipe(image, f"int version_new(void) {{ return {n}; }}", {"version": "version_new"},
                                               previous=ours))
            theirs = make_payload(folder, Recipe(library, f"int library_new(void) {{ return {n}; }}",
                                                 {"library_value": "library_new"}, previous=theirs))
            apply_once_it_can(program.pid, ours, theirs, when)
            if n % 4 == 0:
                program.ask("run", r"^ran\n")
        program.ask("end", r"^ended, older 0\n")
        assert program.finish() == 0
