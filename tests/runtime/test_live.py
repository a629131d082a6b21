"""Running programs take payloads made by hand. Each test shows the new behaviour and rejects the old."""
from __future__ import annotations

import concurrent.futures
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from runtimetools import (
    ARENA,
    HOST,
    PAGE,
    SOURCES,
    Image,
    Payload,
    Recipe,
    Update,
    build,
    environment,
    make_payload,
    maps,
    run,
    settled_maps,
    start,
    wait_for_agent,
)

from hotreload_tool import abi, process
from livetools import Program

SOCKETS = "HOTRELOAD_RUNTIME_DIR"


def refused(pid: int, *payloads: Payload | Path, **options: object) -> process.AgentError:
    """The agent's refusal; what was live before is live after."""
    before = process.status(pid).document
    with pytest.raises(process.AgentError) as caught:
        process.apply(pid, [p.path if isinstance(p, Payload) else p for p in payloads], **options)  # type: ignore[arg-type]
    assert process.status(pid).document == before
    return caught.value


# ---- one image --------------------------------------------------------------------------------------------------


def test_new_code_runs_and_old_does_not(target: Image, new_value: Payload) -> None:
    with start(target) as program:
        program.ask("value", r"^value 101\n")
        result = process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value 1101\n", reject=r"value 102")       # its own static, the counter as it was
        program.ask("value", r"^value 2101\n", reject=r"value 10[0-9]\n")
        program.ask("stored", r"^stored 3101\n")                          # a pointer taken before the patch
        program.ask("thread", r"^4101 in another thread\n")
        program.ask("generation", r"^generation 1 pending 0\n")
        assert program.finish() == 0
    image, = result.images
    assert (image.functions_changed, image.functions_live, image.generation, image.already) == (1, 1, 1, False)
    assert (result.pid, result.dry_run, result.already) == (program.pid, False, False)
    assert (result.threads_stopped, result.pause_us, result.frames_in_old_code) == (0, 0, None)
    assert result.document["protections_restored"] is True


def test_status_before_and_after(target: Image, new_value: Payload) -> None:
    with start(target) as program:
        before = process.status(program.pid)
        process.apply(program.pid, [new_value.path])
        after = process.status(program.pid)
    image, = before.images
    assert (before.pid, before.mode, before.executable) == (program.pid, "thread", str(target.path))
    assert (image.build_id, image.kind, image.path) == (target.build_id.hex(), "pie", str(target.path))
    assert (image.arena_address, image.arena_size, image.arena_used_end) == (target.arena, ARENA, target.arena)
    assert (image.generation, image.id, image.payloads) == (0, "0" * 64, [])
    image, = after.images
    assert (image.generation, image.id, image.arena_used_end) == (1, new_value.id.hex(), new_value.end)
    size = new_value.end - target.arena
    assert image.payloads == [process.LivePayload(1, new_value.id.hex(), target.arena, new_value.end, size)]


def test_generations_follow_each_other(target: Image, new_value: Payload, newer_value: Payload) -> None:
    with start(target) as program:
        assert refused(program.pid, newer_value).code is abi.Code["OUT_OF_ORDER"]
        program.ask("value", r"^value 101\n")
        process.apply(program.pid, [new_value.path])
        program.ask("twice", r"^twice 42\n")
        result = process.apply(program.pid, [newer_value.path])
        program.ask("value", r"^value -1\n", reject=r"value [0-9]")
        program.ask("twice", r"^twice 63\n", reject=r"42")
        assert result.images[0].functions_live == 2
        again = process.apply(program.pid, [new_value.path])       # an older one is there already, and superseded
        assert again.already and again.images[0].already
        assert (again.images[0].functions_live, again.images[0].generation) == (0, 2)
        assert process.apply(program.pid, [newer_value.path]).already
        program.ask("value", r"^value -1\n")
        assert [p.generation for p in process.status(program.pid).images[0].payloads] == [2, 1]


def test_many_generations(target: Image, folder: Path) -> None:
    previous = None
    with start(target) as program:
        for n in range(1, 41):
            source = f"int value_new(void) {{ return {n}; }}"
            previous = make_payload(folder, Recipe(target, source, {"value": "value_new"}, previous=previous))
            process.apply(program.pid, [previous.path])
            program.ask("value", rf"^value {n}\n", reject=rf"value (?!{n}\n)")
        assert len(process.status(program.pid).images[0].payloads) == 40


@pytest.mark.both_kinds
def test_dry_run_changes_nothing(target: Image, new_value: Payload) -> None:
    with start(target) as program:
        process.apply(program.pid, [new_value.path], dry_run=True)     # libgcc_s and the like are loaded now
        status, mapped = process.status(program.pid).document, settled_maps(program.pid)
        result = process.apply(program.pid, [new_value.path], dry_run=True)
        assert process.status(program.pid).document == status
        assert settled_maps(program.pid) == mapped
        image, = result.images
        assert (result.dry_run, image.functions_changed, image.functions_live, image.generation) == (True, 1, 0, 0)
        program.ask("value", r"^value 101\n", reject=r"value 1101")
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value 1101\n")


def test_absolute_programs_and_no_relro(folder: Path) -> None:
    kinds = (("fixed", "-no-pie", "exec"), ("norelro", "-Wl,-z,norelro", "pie"), ("lazy", "-Wl,-z,lazy", "pie"))
    for name, link, kind in kinds:
        image = build(folder, name, [SOURCES / "target.c"], flags=["-fno-pie"] if kind == "exec" else [], link=[link])
        payload = make_payload(folder, Recipe(image, "int value_new(void) { return 77; }", {"value": "value_new"}))
        with start(image) as program:
            assert process.status(program.pid).images[0].kind == kind
            process.apply(program.pid, [payload.path])
            program.ask("value", r"^value 77\n", reject=r"101")


def test_updates(target: Image, folder: Path) -> None:
    def word(n: int) -> bytes:
        return n.to_bytes(4, "little")

    flags = abi.UpdateFlags
    updates = [Update("merged", word(5), word(50), flags.MERGE), Update("tuned", word(5), word(51), flags.MERGE),
               Update("greeting", b"hello", b"howdy", flags.CONSTANT)]
    good = make_payload(folder, Recipe(target, "", {}, updates))
    bad = make_payload(folder, Recipe(target, "", {}, [Update("greeting", b"hallo", b"howdy", flags.CONSTANT)]))
    with start(target) as program:
        program.ask("change", r"^changed 6\n")
        error = refused(program.pid, bad)
        assert error.code is abi.Code["UNEXPECTED_SLOT"] and "constant" in error.detail
        result = process.apply(program.pid, [good.path])
        program.ask("data", r"^data 50 6 howdy 7\n", reject="hello")
        assert (result.images[0].updates_applied, result.images[0].updates_kept) == (2, 1)
        rodata = next(m for m in maps(program.pid)
                      if m.start <= process.status(program.pid).images[0].load_bias + target.symbols["greeting"] < m.end)
        assert rodata.permissions == "r--p"


def test_merge_of_every_size(target: Image, folder: Path) -> None:
    """1, 2 and 4 bytes by compare-and-swap, others by copying; `data` shows merged as a number."""
    cases = [(1, b"\x05", b"\x06", 6), (2, b"\x05\0", b"\0\1", 256), (3, b"\x05\0\0", b"\1\0\1", 65537)]
    for _, old, new, expected in cases:
        payload = make_payload(folder, Recipe(target, "", {}, [Update("merged", old, new, abi.UpdateFlags.MERGE)]))
        with start(target) as program:
            process.apply(program.pid, [payload.path])
            program.ask("data", rf"^data {expected} 5 hello 7\n")


def test_exceptions_through_patched_functions(folder: Path) -> None:
    objects = folder / "throws.o"
    run(["g++", "-O2", "-fPIC", f"-I{SOURCES}", "-c", SOURCES / "throws.cc", "-o", objects])
    image = build(folder, "throwing", [SOURCES / "target.c", objects], flags=["-DTHROWS"], link=["-lstdc++"])
    source = """
    #include <stdexcept>
    extern "C" int risky_new(int x) { if (x < 100) throw std::runtime_error("new"); return x; }
    """
    payload = make_payload(folder, Recipe(image, source, {"risky": "risky_new"}, compiler="g++"))
    caught = f"throws {1000 + ord('n')}"
    with start(image) as program:
        program.ask("throws", r"^throws 50\n")
        process.apply(program.pid, [payload.path])
        program.ask("throws", rf"^{caught}\n", reject=r"throws 50")
        program.ask("throws", rf"^{caught}\n")


def test_exceptions_with_a_static_unwinder(folder: Path) -> None:
    """The program throws with its own copy of libgcc, which never hears what libgcc_s is told."""
    objects = folder / "throws_static.o"
    run(["g++", "-O2", "-fPIC", f"-I{SOURCES}", "-c", SOURCES / "throws.cc", "-o", objects])
    image = build(folder, "throwing_static", [SOURCES / "target.c", objects], flags=["-DTHROWS"], compiler="gcc",
                  link=["-static-libgcc", "-Wl,-Bstatic", "-lstdc++", "-Wl,-Bdynamic"])
    assert "libgcc_s" not in run(["readelf", "-d", image.path])
    # Calls back into a function of the image that throws; the exception passes the payload's frame.
    source = """
    extern "C" int thrower(int);
    extern "C" int risky_new(int x) { return thrower(x + 100) + 1; }
    """
    needed = "risky.hr_body"
    payload = make_payload(folder, Recipe(image, source.replace("thrower(int)", f"thrower(int) __asm__(\"{needed}\")"),
                                          {"risky": "risky_new"}, compiler="g++"))
    with start(image) as program:
        program.ask("throws", r"^throws 50\n")
        process.apply(program.pid, [payload.path])
        program.ask("throws", rf"^throws {1000 + ord('o')}\n", reject=r"throws 50")


# ---- the program must not notice --------------------------------------------------------------------------------


def test_descriptor_table_and_output_are_the_program_s(target: Image, new_value: Payload) -> None:
    with start(target) as program:
        program.ask("descriptors", r"^0 1 2 descriptors\n")
        process.status(program.pid)
        process.apply(program.pid, [new_value.path])
        program.ask("descriptors", r"^0 1 2 descriptors\n")
        assert program.finish() == 0
        assert program.transcript == "ready\n" + 2 * "0 1 2 descriptors\n"


def test_agent_does_not_hold_the_program_s_pipes_open(folder: Path, target: Image) -> None:
    """The reader sees the end of the pipe though the process lives on."""
    done = subprocess.Popen([target.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True)
    assert done.stdin and done.stdout
    try:
        assert done.stdout.readline() == "ready\n"
        tasks = list(Path(f"/proc/{done.pid}/task").iterdir())
        agent = next(t for t in tasks if t.name != str(done.pid))
        links = {os.readlink(p) for p in (agent / "fd").iterdir()}
        assert (agent / "comm").read_text() == "hotreload\n"
        assert all(link == "/dev/null" or link.startswith("socket:") for link in links), links
    finally:
        done.kill()
        done.communicate()


def test_signals_and_wakeups(target: Image) -> None:
    """All signals are blocked in the agent's thread, and it does not wake up while nothing comes."""
    with start(target) as program:
        process.status(program.pid)
        agent = next(t for t in Path(f"/proc/{program.pid}/task").iterdir() if t.name != str(program.pid))
        state = dict(line.split(":\t", 1) for line in (agent / "status").read_text().splitlines() if ":\t" in line)
        blocked = int(state["SigBlk"], 16)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGPROF):
            assert blocked >> (number - 1) & 1, number
        assert not blocked >> 31 & 1 and not blocked >> 32 & 1      # glibc's own SIGCANCEL and SIGSETXID
        main = Path(f"/proc/{program.pid}/status").read_text()
        assert re.search(r"^SigBlk:\t0+$", main, re.MULTILINE)       # the program's own mask is as before
        program.ask("value", r"^value 101\n")
        switches = state["voluntary_ctxt_switches"]
        program.ask("spawn", r"^spawned, status 0\n")                # the program works, the agent sleeps
        later = (agent / "status").read_text()
        assert f"voluntary_ctxt_switches:\t{switches}\n" in later or int(
            re.findall(r"^voluntary_ctxt_switches:\t(\d+)$", later, re.MULTILINE)[0]) - int(switches) <= 1


@pytest.mark.both_kinds
def test_no_page_is_ever_writable_and_executable(target: Image, new_value: Payload, newer_value: Payload) -> None:
    with start(target) as program:
        before = [m for m in settled_maps(program.pid) if m.file == str(target.path)]
        for payload in (new_value, newer_value):
            process.apply(program.pid, [payload.path])
            assert not [m for m in maps(program.pid) if "w" in m.permissions and "x" in m.permissions]
        after = [m for m in settled_maps(program.pid) if m.file == str(target.path)]
        assert after == before                                       # RELRO closed again
        mine = [m for m in maps(program.pid) if m.file == str(new_value.path)]
        assert [m.permissions for m in mine] == ["r--p", "r-xp", "r--p", "r--p"]    # the last is RELRO; .bss is anonymous


def test_arena_is_inaccessible_until_used(target: Image, new_value: Payload) -> None:
    with start(target) as program:
        start_of_arena = process.status(program.pid).images[0].load_bias + target.arena
        arena = next(m for m in maps(program.pid) if m.start == start_of_arena)
        assert (arena.permissions, arena.end - arena.start) == ("---p", ARENA)
        process.apply(program.pid, [new_value.path])
        rest = next(m for m in maps(program.pid) if m.end == start_of_arena + ARENA)
        assert rest.permissions == "---p" and rest.start == start_of_arena + new_value.end - target.arena


def test_locked_memory(target: Image, new_value: Payload) -> None:
    with start(target) as program:
        program.ask("lock", r"^locked 0\n")
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value 1100\n")


def test_program_that_closes_all_descriptors(target: Image, new_value: Payload) -> None:
    with start(target) as program:
        program.ask("close", r"^closed\n")
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value 1100\n")


def test_children(target: Image, new_value: Payload, newer_value: Payload, sockets: Path) -> None:
    """A forked child has an agent of its own; what it takes stays in it. fork+exec leaves no sockets behind."""
    with start(target) as program:
        process.apply(program.pid, [new_value.path])
        child = int(program.ask("fork", r"^child (\d+)\n")[1])
        status = wait_for_agent(child)
        assert (status.pid, status.images[0].generation) == (child, 1)
        process.apply(child, [newer_value.path])
        program.ask("value", r"^value -1\n")
        assert process.status(program.pid).images[0].generation == 1
        program.ask("exit", r"^child ended with 768\n")
        assert not (sockets / f"{child}.sock").exists()
        program.ask("value", r"^value 1100\n", reject=r"-1")
        program.ask("spawn", r"^spawned, status 0\n")
        assert [p.name for p in sockets.iterdir()] == [f"{program.pid}.sock"]
        assert program.finish() == 0
    assert list(sockets.iterdir()) == []


def test_patches_come_in_while_threads_fork(target: Image, folder: Path, sockets: Path) -> None:
    previous, payloads = None, []
    for n in range(1, 11):
        source = f"int value_new(void) {{ return {n}; }}"
        previous = make_payload(folder, Recipe(target, source, {"value": "value_new"}, previous=previous))
        payloads.append(previous)
    with start(target) as program:
        program.send("churn\n")
        for payload in payloads:
            process.apply(program.pid, [payload.path], timeout=60)
        program.expect(r"^churned 0\n")
        program.ask("value", r"^value 10\n")
        assert program.finish() == 0
    assert [p.name for p in sockets.iterdir() if p.name == f"{program.pid}.sock"] == []


def test_disabled_by_the_environment(target: Image) -> None:
    with start(target, HOTRELOAD_DISABLE="1") as program:
        program.ask("threads", r"^1 threads\n")
        with pytest.raises(process.NoAgent) as caught:
            process.status(program.pid)
        assert caught.value.exit_code == 3
        program.ask("value", r"^value 101\n")
        program.ask("generation", r"^generation 0 pending 0\n")


def test_set_user_id_programs_have_no_agent(target: Image, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a set-user-id program of another user")
    copy = folder / "setuid"
    copy.write_bytes(target.path.read_bytes())
    os.chown(copy, 65534, 65534)
    copy.chmod(0o4755)
    with Program([copy], env=environment()) as program:
        program.expect(r"^ready\n")
        program.ask("threads", r"^1 threads\n")


@pytest.mark.parametrize("wrong", ["mode", "link", "file"])
def test_untrusted_runtime_directories_are_not_used(target: Image, tmp_path: Path, wrong: str) -> None:
    directory, other = tmp_path / "sockets", tmp_path / "other"
    other.mkdir(mode=0o700)
    if wrong == "mode":
        directory.mkdir(mode=0o755)
    elif wrong == "link":
        directory.symlink_to(other)
    else:
        directory.write_text("")
    with Program([target.path], env={**environment(), SOCKETS: str(directory)}) as program:
        program.expect(r"^ready\n")
        program.ask("value", r"^value 101\n")
        assert [*other.iterdir(), *(directory.iterdir() if directory.is_dir() else [])] == []


def test_long_runtime_directory(target: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_value: Payload) -> None:
    """Longer than a socket address; made by the agent with mode 0700."""
    directory = tmp_path / ("x" * 120)
    monkeypatch.setenv(SOCKETS, str(directory))
    with start(target) as program:
        assert directory.stat().st_mode & 0o7777 == 0o700
        assert [a.pid for a in process.find()] == [program.pid]
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value 1100\n")
        assert program.finish() == 0
    assert list(directory.iterdir()) == []


def test_sanitized_program(folder: Path) -> None:
    """The whole runtime under AddressSanitizer and UBSan, leak check included."""
    flags = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    image = build(folder, "sanitized", [SOURCES / "target.c"], flags=flags, runtime_flags=flags, link=flags)
    first = make_payload(folder, Recipe(image, "int value_new(void) { return 77; }", {"value": "value_new"}))
    second = make_payload(folder, Recipe(image, "int value_new(void) { return 78; }", {"value": "value_new"}, previous=first,
                                         parent=bytes(32)))
    with start(image) as program:
        process.apply(program.pid, [first.path], dry_run=True)
        process.apply(program.pid, [first.path])
        program.ask("value", r"^value 77\n", reject=r"101")
        assert refused(program.pid, second).code is abi.Code["OUT_OF_ORDER"]
        child = int(program.ask("fork", r"^child (\d+)\n")[1])
        wait_for_agent(child)
        program.ask("exit", r"^child ended with 768\n")
        assert program.finish() == 0, program.transcript


# ---- several images ---------------------------------------------------------------------------------------------


def test_program_and_library(target: Image, library: Image, new_value: Payload, new_library: Payload, folder: Path) -> None:
    with start(target) as program:
        program.ask(f"load {library.path}", r"^loaded\n")
        program.ask("threads", r"^2 threads\n")                        # the library's copy found the agent
        images = {i.build_id: i for i in process.status(program.pid).images}
        assert images[library.build_id.hex()].kind == "shared"
        assert images[library.build_id.hex()].path == str(library.path)
        program.ask("library", r"^library 50\n")
        result = process.apply(program.pid, [new_value.path, new_library.path])
        assert [i.functions_live for i in result.images] == [1, 1]
        program.ask("value", r"^value 1100\n", reject="101")
        program.ask("library", r"^library 40011\n", reject="51")
        program.ask("unload", r"^unloaded 0\n")
        assert str(library.path) not in {m.file for m in maps(program.pid)}
        assert [i.build_id for i in process.status(program.pid).images] == [target.build_id.hex()]
        program.ask(f"load {library.path}", r"^loaded\n")               # loaded anew, it has its generation
        program.ask("library", r"^library 40010\n", reject="50")
        assert process.apply(program.pid, [new_value.path, new_library.path]).already
        program.ask("library", r"^library 40011\n", reject="51")


def test_all_payloads_or_none(target: Image, library: Image, new_value: Payload, new_library: Payload, folder: Path) -> None:
    bad = make_payload(folder, Recipe(library, "int library_new(void) { return 1; }", {"library_value": "library_new"},
                                      old_targets={"library_value": library.symbols["library_generation"]}))
    with start(target) as program:
        assert refused(program.pid, new_value, new_library).code is abi.Code["WRONG_IMAGE"]
        program.ask(f"load {library.path}", r"^loaded\n")
        assert refused(program.pid, new_value, bad).code is abi.Code["UNEXPECTED_SLOT"]
        program.ask("value", r"^value 101\n")
        program.ask("library", r"^library 50\n")
        assert refused(program.pid, new_value, new_value).code is abi.Code["BAD_REQUEST"]
        process.apply(program.pid, [new_value.path, new_library.path])
        program.ask("value", r"^value 1101\n")


def test_one_library_loaded_twice(target: Image, library: Image, new_library: Payload, folder: Path) -> None:
    """Two copies of one file: the payload goes into both."""
    copy = folder / "libcopy.so"
    copy.write_bytes(library.path.read_bytes())
    with start(target) as program:
        program.ask(f"load {library.path}", r"^loaded\n")
        program.ask(f"load {copy}", r"^loaded\n")
        result = process.apply(program.pid, [new_library.path])
        assert [i.functions_live for i in result.images] == [1, 1]
        program.ask("library", r"^library 40010\n", reject=r"library 50")


def test_library_in_a_host_without_the_runtime(library: Image, new_library: Payload) -> None:
    """The library claims the process. It stays loaded, because its agent runs."""
    with Program([sys.executable, "-c", HOST], env=environment()) as program:
        program.expect(r"^ready\n")
        with pytest.raises(process.NoAgent):
            process.status(program.pid)
        program.ask(f"load {library.path}", r"^loaded\n")
        status = process.status(program.pid)
        assert [i.kind for i in status.images] == ["shared"]
        program.ask("library", r"^library 50\n")
        process.apply(program.pid, [new_library.path])
        program.ask("library", r"^library 40011\n", reject=r"library 5[0-9]\n")
        program.ask("unload", r"^unloaded\n")
        assert process.status(program.pid).images[0].generation == 1
        assert program.finish() == 0


def test_other_version_of_the_runtime_is_refused(target: Image, library: Image, new_library: Payload, folder: Path) -> None:
    """The library's struct hr_image says another HR_ABI: the program's agent leaves it alone."""
    note = next(line for line in run(["nm", library.path]).splitlines() if line.endswith(" hr_self"))
    raw = bytearray(library.path.read_bytes())
    magic = struct.pack("<II", 0x31474D49, abi.ABI)
    assert raw.count(magic) == 1, note
    at = raw.index(magic)
    raw[at + 4:at + 8] = struct.pack("<I", abi.ABI + 1)
    other = folder / "libother.so"
    other.write_bytes(raw)
    with start(target) as program:
        program.ask(f"load {other}", r"^loaded\n")
        error = refused(program.pid, new_library)
        assert error.code is abi.Code["ABI_MISMATCH"] and "build all images with one version" in error.detail
        program.ask("library", r"^library 50\n")


# ---- poll mode --------------------------------------------------------------------------------------------------


class Client:
    """An apply on its own thread, because the program answers only when it polls."""

    def __init__(self, pid: int, payload: Payload, timeout: float = 60.0) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._future = self._pool.submit(process.apply, pid, [payload.path], timeout=timeout)

    def result(self) -> process.ApplyResult:
        self._pool.shutdown()
        return self._future.result(60)


def poll_until(program: Program, applied: int) -> None:
    """Ask the program to poll until it reports `applied` generations. It waits on hotreload_fd in between."""
    for _ in range(1000):
        if program.ask("poll", r"^poll (\d+)\n")[1] == str(applied):
            return
    pytest.fail("the patch never came in")


@pytest.mark.both_kinds
def test_poll_mode(polling: Image, new_polling: Payload) -> None:
    with start(polling) as program:
        program.ask("threads", r"^1 threads\n")
        program.ask("poll", r"^poll 0\n")
        program.ask("value", r"^value 101\n")
        client = Client(program.pid, new_polling)
        while "1" not in program.ask("pending", r"^pending (\d)\n")[1]:
            pass
        program.ask("value", r"^value 102\n", reject="1101")            # nothing happens before it polls
        poll_until(program, 1)
        result = client.result()
        assert result.images[0].functions_live == 1
        program.ask("value", r"^value 1102\n", reject="103")
        program.ask("threads", r"^1 threads\n")
        program.ask("pending", r"^pending 0\n")
        assert program.finish() == 0
    assert not (Path(os.environ[SOCKETS]) / f"{program.pid}.sock").exists()


def test_poll_mode_descriptors(polling: Image) -> None:
    """High numbers only, the same one again and again."""
    with start(polling) as program:
        fd = int(program.ask("fd", r"^fd (\d+)\n")[1])
        program.ask("fd", rf"^fd {fd}\n")
        numbers = program.ask("descriptors", r"^((?:\d+ )+)descriptors\n")[1].split()
        assert sorted(map(int, numbers))[:3] == [0, 1, 2]
        assert min(map(int, numbers[3:])) >= 512 and str(fd) in numbers


def test_poll_mode_after_closing_everything(polling: Image, new_polling: Payload) -> None:
    """What the program opened under our numbers is left alone."""
    with start(polling) as program:
        program.ask("close", r"^closed\n")
        before = program.ask("descriptors", r"^((?:\d+ )+)descriptors\n")[1].split()
        assert "1008" in before and "1009" in before
        program.ask("poll", r"^poll 0\n")
        after = program.ask("descriptors", r"^((?:\d+ )+)descriptors\n")[1].split()
        assert set(before) < set(after) and len(after) == len(before) + 2
        links = {n: os.readlink(f"/proc/{program.pid}/fd/{n}") for n in before}
        assert links["1008"] == links["1009"] == "/dev/null"
        client = Client(program.pid, new_polling)
        poll_until(program, 1)
        assert client.result().images[0].functions_live == 1
        program.ask("value", r"^value 1100\n")


def test_poll_mode_with_a_client_that_stalls(polling: Image, new_polling: Payload) -> None:
    """A connection that sends nothing, or half a request, does not hold the program up; the next is served."""
    with start(polling) as program:
        path = str(Path(os.environ[SOCKETS]) / f"{program.pid}.sock")
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(path)
            silent.send(abi.pack_request(abi.Op.STATUS)[:30])
            program.ask("poll", r"^poll 0\n")
            program.ask("value", r"^value 101\n")
            silent.send(abi.pack_request(abi.Op.STATUS)[30:])            # in parts it is served all the same
            program.ask("poll", r"^poll 0\n")
            silent.settimeout(60)
            assert abi.REPLY.unpack(silent.recv(abi.REPLY.size))[2] == 0
        with socket.socket(socket.AF_UNIX) as gone:
            gone.connect(path)
        client = Client(program.pid, new_polling)
        poll_until(program, 1)
        assert client.result().images[0].functions_live == 1


def test_poll_mode_does_not_patch_for_a_client_that_left(polling: Image, new_polling: Payload) -> None:
    with start(polling) as program:
        with pytest.raises(process.NoAnswer) as caught:
            process.apply(program.pid, [new_polling.path], timeout=0.01)
        assert caught.value.exit_code == 4
        program.ask("poll", r"^poll 0\n")
        program.ask("value", r"^value 101\n", reject="1101")
        client = Client(program.pid, new_polling)
        poll_until(program, 1)
        client.result()
        program.ask("value", r"^value 1101\n")


def test_poll_mode_in_a_child(polling: Image, new_polling: Payload) -> None:
    with start(polling) as program:
        child = int(program.ask("fork", r"^child (\d+)\n")[1])
        program.ask("poll", r"^poll 0\n")                                # opens the child's own socket
        client = Client(child, new_polling)
        poll_until(program, 1)
        assert client.result().pid == child
        program.ask("value", r"^value 1100\n")
        program.ask("exit", r"^child ended with 768\n")
        program.ask("value", r"^value 101\n", reject="1100")
        program.ask("poll", r"^poll 0\n")
        client = Client(program.pid, new_polling)
        poll_until(program, 1)
        assert client.result().pid == program.pid


def test_poll_mode_of_the_program_governs_its_libraries(folder: Path, library: Image, sockets: Path) -> None:
    """The library's constructor runs first, but the program forbids threads: so the library waits for it."""
    image = build(folder, "polling_linked", [SOURCES / "target.c"], flags=["-DPOLLS"],
                  link=["-Wl,--no-as-needed", str(library.path), f"-Wl,-rpath,{library.path.parent}"])
    with start(image) as program:
        program.ask("threads", r"^1 threads\n")
        program.ask("poll", r"^poll 0\n")
        assert [a.pid for a in process.find()] == [program.pid]


def test_archive_is_pulled_in_only_when_called(target: Image, polling: Image) -> None:
    assert "hotreload_poll" not in target.symbols and "hotreload_poll" in polling.symbols


# ---- import ------------------------------------------------------------------------------------------------------


def test_imports(target: Image, folder: Path) -> None:
    source = """
    #include <stdio.h>
    #include <string.h>
    extern int not_there(void) __attribute__((weak));
    int value_new(void) {
      char text[32];
      snprintf(text, sizeof text, "%d", 4711);
      fputs("to stderr\\n", stderr);
      return not_there ? -1 : (int)strlen(text);
    }
    """
    good = make_payload(folder, Recipe(target, source, {"value": "value_new"}))
    bad = make_payload(folder, Recipe(target, "int not_there(void); int value_new(void) { return not_there(); }",
                                      {"value": "value_new"}))
    library = make_payload(folder, Recipe(target, "double cos(double); volatile double x; int value_new(void) { return cos(x); }",
                                          {"value": "value_new"}))
    with start(target) as program:
        for payload, name in ((bad, "not_there"), (library, "cos@GLIBC_2.2.5")):      # libm is not loaded
            error = refused(program.pid, payload)
            assert error.code is abi.Code["MISSING_IMPORT"] and error.detail == name
        process.apply(program.pid, [good.path])
        program.ask("value", r"^to stderr\nvalue 4\n")


def test_payload_that_calls_an_instrumented_function_reaches_its_newest_code(target: Image, new_value: Payload,
                                                                             newer_value: Payload) -> None:
    """new_value calls twice(0) through its stub; that stays so when twice() is replaced."""
    with start(target) as program:
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value 1100\n")
        process.apply(program.pid, [newer_value.path])
        program.ask("twice", r"^twice 63\n", reject="42")


def test_page_size_is_the_one_assumed() -> None:
    assert os.sysconf("SC_PAGESIZE") == PAGE


# ---- programs that forbid things ---------------------------------------------------------------------------------


FILTERED = """
import ctypes, os, struct, sys
unshare = 272
code = [(0x20, 0, 0, 0), (0x15, 0, 1, unshare), (0x06, 0, 0, 0x00050000 | 1), (0x06, 0, 0, 0x7fff0000)]
raw = b"".join(struct.pack("HBBI", *c) for c in code)
buffer = ctypes.create_string_buffer(raw)
program = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_without_unshare_the_agent_lives_in_the_program_s_table(target: Image, new_value: Payload, sockets: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """A seccomp filter forbids unshare: the socket has a high number then, and its identity is checked before use."""
    monkeypatch.setenv("HOTRELOAD_SECCOMP", "1")       # it allows all other calls
    with Program([sys.executable, "-c", FILTERED, target.path], env=environment()) as program:
        program.expect(r"^ready\n")
        numbers = program.ask("descriptors", r"^((?:\d+ )+)descriptors\n")[1].split()
        assert numbers[:3] == ["0", "1", "2"] and len(numbers) == 4 and int(numbers[3]) >= 512
        process.status(program.pid)
        program.ask("close", r"^closed\n")
        process.status(program.pid)
        process.apply(program.pid, [new_value.path])
        program.ask("value", r"^value 1100\n")
        process.status(program.pid)
        assert os.readlink(f"/proc/{program.pid}/fd/1008") == os.readlink(f"/proc/{program.pid}/fd/1009") == "/dev/null"
        child = int(program.ask("fork", r"^child (\d+)\n")[1])
        assert wait_for_agent(child).pid == child
        program.ask("exit", r"^child ended with 768\n")
        assert process.status(program.pid).images[0].generation == 1
        assert program.finish() == 0
    assert list(sockets.iterdir()) == []
