"""Payloads and requests an agent must refuse: the right code, and the process exactly as it was."""
from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runtimetools import Image, Payload, Recipe, Update, make_payload, settled_maps, start

from hotreload_tool import abi, process
from livetools import Program

PHDR = struct.Struct("<IIQQQQQQ")      # type, flags, offset, vaddr, paddr, filesz, memsz, align
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_TLS, PT_GNU_STACK, PT_GNU_RELRO = 1, 2, 3, 7, 0x6474E551, 0x6474E552
RELA = struct.Struct("<QQq")
SIMPLE = "int value_new(void) { return 77; }"
IMPORTS = '#include <stdio.h>\nint value_new(void) { return printf("%d\\n", 1); }'
REDIRECT = {"value": "value_new"}
Change = Callable[[bytearray], None]


@pytest.fixture(scope="module")
def simple(folder: Path, target: Image) -> Payload:
    return make_payload(folder, Recipe(target, SIMPLE, REDIRECT))


@pytest.fixture(scope="module")
def importing(folder: Path, target: Image) -> Payload:
    return make_payload(folder, Recipe(target, IMPORTS, REDIRECT))


@pytest.fixture(scope="module")
def program(target: Image, simple: Payload) -> Iterator[Program]:
    """One program for all refusals of this module: each leaves it as it found it."""
    with start(target) as running:
        process.apply(running.pid, [simple.path], dry_run=True)     # libgcc_s is loaded now
        yield running
        process.apply(running.pid, [simple.path])
        running.ask("value", r"^value 77\n")


def refusal(program: Program, *paths: Path, **options: object) -> process.AgentError:
    before, mapped = process.status(program.pid).document, settled_maps(program.pid)
    with pytest.raises(process.AgentError) as caught:
        process.apply(program.pid, list(paths), **options)  # type: ignore[arg-type]
    assert process.status(program.pid).document == before
    assert settled_maps(program.pid) == mapped
    program.ask("value", r"^value 1[0-9][0-9]\n", reject="value 77")
    return caught.value


def check(error: process.AgentError, code: str, words: str) -> None:
    assert (error.code, error.exit_code) == (abi.Code[code], abi.CODES[code].exit_code)
    assert error.message == abi.CODES[code].sentence
    assert words in error.detail, error.detail


def altered(tmp_path: Path, payload: Payload, change: Change) -> Path:
    raw = bytearray(payload.path.read_bytes())
    before = bytes(raw)
    change(raw)
    assert raw != before
    path = tmp_path / "altered.so"
    path.write_bytes(raw)
    return path


# ---- what the tool could get wrong: payloads for something else ------------------------------------------------


@pytest.mark.parametrize("fields, code, words", [
    ({"build_id": bytes(20)}, "WRONG_IMAGE", "build-id 00000000"),
    ({"build_id": b"\1"}, "WRONG_IMAGE", "build-id 01"),
    ({"generation": 2}, "OUT_OF_ORDER", "the payload is generation 2, the image is at generation 0"),
    ({"parent": b"\1" * 32}, "OUT_OF_ORDER", "generation 0 with another history"),
    ({"id": bytes(32)}, "BAD_PAYLOAD", "header is damaged"),
    ({"base": 1 << 30}, "NO_ARENA", "the payload occupies 0x40000000"),
    ({"old_targets": {"value": 0x1234}}, "UNEXPECTED_SLOT", "expected 0x1234"),
])
def test_payload_for_something_else(folder: Path, target: Image, program: Program, fields: dict[str, object], code: str,
                                    words: str) -> None:
    payload = make_payload(folder, Recipe(target, SIMPLE, REDIRECT, **fields))  # type: ignore[arg-type]
    check(refusal(program, payload.path), code, words)


def test_arena_that_is_nearly_full(folder: Path, target: Image, program: Program) -> None:
    payload = make_payload(folder, Recipe(target, "char large[1 << 20]; int value_new(void) { return large[5]; }", REDIRECT))
    check(refusal(program, payload.path), "NO_ARENA", "the arena is")


def test_arena_that_is_in_use(folder: Path, target: Image, simple: Payload) -> None:
    payload = make_payload(folder, Recipe(target, "int value_new(void) { return 78; }", REDIRECT, previous=simple,
                                          base=target.arena))
    with start(target) as running:
        process.apply(running.pid, [simple.path])
        before = process.status(running.pid).document
        with pytest.raises(process.AgentError) as caught:
            process.apply(running.pid, [payload.path])
        check(caught.value, "NO_ARENA", "generation 1 occupies")
        assert process.status(running.pid).document == before
        running.ask("value", r"^value 77\n")


@pytest.mark.parametrize("update, code, words", [
    (Update("value", b"\xf3", b"\x90", abi.UpdateFlags.CONSTANT), "UNSUPPORTED", "between code"),
    (Update("counter", b"\0\0\0\0", b"\1\0\0\0", abi.UpdateFlags.CONSTANT), "UNEXPECTED_SLOT", "does not hold its old content"),
    (Update("counter", b"\0", b"\1", 3), "BAD_PAYLOAD", "flags 0x3"),
    (Update("counter", b"\0", b"\1", 8), "BAD_PAYLOAD", "flags 0x8"),
    (Update("counter", b"\0", b"\1", abi.UpdateFlags.THREADS), "UNSUPPORTED", "not in the program's own TLS segment"),
    (Update("arena", b"\0", b"\1", 0, offset=1 << 19), "BAD_PAYLOAD", "not inside the image's data"),
    (Update("counter", b"\0", b"\1", 0, offset=1 << 40), "BAD_PAYLOAD", "not inside the image's data"),
    (Update("counter", b"", b"", 0), "BAD_PAYLOAD", "outside the payload"),
])
def test_updates_of_what_is_no_data(folder: Path, target: Image, program: Program, update: Update, code: str,
                                    words: str) -> None:
    source = SIMPLE if update.old else SIMPLE + " "
    try:
        payload = make_payload(folder, Recipe(target, source, REDIRECT, [update]))
    except AssertionError:
        assert not update.old        # `.byte` without a value: the assembler takes no empty content
        pytest.skip("this assembler refuses empty content")
    check(refusal(program, payload.path), code, words)


@pytest.mark.parametrize("source, words", [
    ("static int a; __attribute__((constructor)) void at_start(void) { a++; } int value_new(void) { return a; }",
     "initialisers that run code"),
    ("static __thread int new_local; int value_new(void) { return ++new_local; }", "new thread-local variables"),
    ("extern __thread int errno_like; int value_new(void) { return errno_like; }", "thread-local variables of another image"),
])
def test_what_this_version_does_not_support(folder: Path, target: Image, program: Program, source: str, words: str,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    import runtimetools

    more = "  .init_array : { *(.init_array .init_array.*) } :data\n  .tdata : { *(.tdata .tbss) } :data :tls\n  .bss"
    script = runtimetools._SCRIPT.replace("  .bss", more).replace("PHDRS {{", "PHDRS {{ tls PT_TLS FLAGS(4);")
    script = script.replace("{ *(.init_array .init_array.*) }", "{{ *(.init_array .init_array.*) }}")
    script = script.replace("{ *(.tdata .tbss) }", "{{ *(.tdata .tbss) }}")
    if "static __thread" not in source:
        script = script.replace(" tls PT_TLS FLAGS(4);", "").replace(" :data :tls", " :data")
    monkeypatch.setattr(runtimetools, "_SCRIPT", script)
    payload = make_payload(folder, Recipe(target, source, REDIRECT))
    check(refusal(program, payload.path), "UNSUPPORTED", words)


# ---- damaged files ----------------------------------------------------------------------------------------------


def header(change: Callable[[list[int]], object], kind: int, nth: int = 0) -> Change:
    """Alters the nth program header of a kind."""
    def edit(raw: bytearray) -> None:
        offset, = struct.unpack_from("<Q", raw, 32)
        count, = struct.unpack_from("<H", raw, 56)
        at = [offset + i * PHDR.size for i in range(count) if struct.unpack_from("<I", raw, offset + i * PHDR.size)[0] == kind]
        fields = list(PHDR.unpack_from(raw, at[nth]))
        change(fields)
        PHDR.pack_into(raw, at[nth], *fields)
    return edit


def store(index: int, value: int) -> Callable[[list[int]], object]:
    return lambda fields: fields.__setitem__(index, value)


def put(offset: int, layout: str, value: int) -> Change:
    return lambda raw: struct.pack_into(layout, raw, offset, value)


def at_entry(offset: int, layout: str, value: int) -> Change:
    """Alters a field of hr_payload. The linker script puts data pages at the same place in file and memory."""
    def edit(raw: bytearray) -> None:
        entry, = struct.unpack_from("<Q", raw, 24)
        count, = struct.unpack_from("<H", raw, 56)
        for i in range(count):
            kind, _, file_offset, vaddr, _, size, _, _ = PHDR.unpack_from(raw, 64 + i * PHDR.size)
            if kind == PT_LOAD and vaddr <= entry < vaddr + size:
                struct.pack_into(layout, raw, file_offset + entry - vaddr + offset, value)
    return edit


N_REDIRECTS, N_UPDATES, N_EH, N_TLS, N_INIT, N_PARTS, N_HEADS = (abi.PAYLOAD_TABLES[t] + 8 for t in abi.PAYLOAD_TABLES)

DAMAGE: dict[str, tuple[Change, str, str]] = {
    "no ELF file": (put(0, "<B", 0), "BAD_PAYLOAD", "not an ELF file"),
    "32 bits": (put(4, "<B", 1), "BAD_PAYLOAD", "not a 64-bit ELF image"),
    "big endian": (put(5, "<B", 2), "BAD_PAYLOAD", "not a 64-bit ELF image"),
    "a relocatable object": (put(16, "<H", 1), "BAD_PAYLOAD", "type 1"),
    "absolute addresses": (put(16, "<H", 2), "BAD_PAYLOAD", "absolute addresses"),
    "another machine": (put(18, "<H", 183), "BAD_PAYLOAD", "machine 183"),
    "no program headers": (put(56, "<H", 0), "BAD_PAYLOAD", "0 program headers"),
    "many program headers": (put(56, "<H", 65535), "BAD_PAYLOAD", "65535 program headers"),
    "program headers of another size": (put(54, "<H", 32), "BAD_PAYLOAD", "of 32 bytes"),
    "program headers beyond the end": (put(32, "<Q", 1 << 40), "BAD_PAYLOAD", "outside the file"),
    "entry elsewhere": (put(24, "<Q", 0x10), "BAD_PAYLOAD", "is not a payload header"),
    "entry in the code": (header(lambda f: None, PT_LOAD), "BAD_PAYLOAD", ""),      # replaced below
    "writable code": (header(store(1, 7), PT_LOAD, 1), "BAD_PAYLOAD", "writable and executable"),
    "code that can't be read": (header(store(1, 1), PT_LOAD, 1), "BAD_PAYLOAD", "not readable"),
    "segment beyond the end": (header(store(5, 1 << 30), PT_LOAD, 3), "BAD_PAYLOAD", "impossible size"),
    "segment at a huge address": (header(store(3, 1 << 60), PT_LOAD, 3), "BAD_PAYLOAD", "impossible size"),
    "segment at a huge offset": (header(store(2, 1 << 60), PT_LOAD, 3), "BAD_PAYLOAD", "of a file of"),
    "segment off its page": (header(store(2, 8), PT_LOAD, 1), "BAD_PAYLOAD", "not page-aligned"),
    "zeros after read-only": (header(store(6, 0x800), PT_LOAD, 2), "BAD_PAYLOAD", "zeros to add"),
    "segments that overlap": (header(lambda f: f.__setitem__(3, f[3] - 0x1000), PT_LOAD, 2), "BAD_PAYLOAD", "shares a page"),
    "segment far away": (header(lambda f: f.__setitem__(3, f[3] + (1 << 40)), PT_LOAD, 3), "BAD_PAYLOAD", ""),
    "executable stack": (header(store(1, 7), PT_GNU_STACK), "BAD_PAYLOAD", "executable stack"),
    "an interpreter": (header(store(0, PT_INTERP), PT_GNU_STACK), "BAD_PAYLOAD", "a program, not a payload"),
    "thread-local data": (header(store(0, PT_TLS), PT_GNU_STACK), "UNSUPPORTED", "thread-local"),
    "dynamic section elsewhere": (header(store(3, 0x10), PT_DYNAMIC), "BAD_PAYLOAD", "dynamic section"),
    "dynamic section askew": (header(lambda f: f.__setitem__(3, f[3] + 4), PT_DYNAMIC), "BAD_PAYLOAD", "dynamic section"),
    "RELRO over code": (header(lambda f: f.__setitem__(3, f[3] - 0x2000), PT_GNU_RELRO), "BAD_PAYLOAD", "RELRO"),
    "RELRO too long": (header(store(6, 1 << 20), PT_GNU_RELRO), "BAD_PAYLOAD", "RELRO"),
    "payload of another version": (at_entry(8, "<I", 1), "ABI_MISMATCH", "made for version 1"),
    "no payload header": (at_entry(0, "<Q", 0), "BAD_PAYLOAD", "no payload header"),
    "payload header of another size": (at_entry(12, "<I", 8), "BAD_PAYLOAD", "header is damaged"),
    "payload flags": (at_entry(124, "<I", 2), "BAD_PAYLOAD", "header is damaged"),
    "long build-id": (at_entry(120, "<I", 33), "BAD_PAYLOAD", "header is damaged"),
    "generation 0": (at_entry(16, "<Q", 0), "BAD_PAYLOAD", "header is damaged"),
    "many redirects": (at_entry(N_REDIRECTS, "<Q", 1 << 62), "BAD_PAYLOAD", "tables lie outside"),
    "too many redirects": (at_entry(N_REDIRECTS, "<Q", 1000), "BAD_PAYLOAD", "tables lie outside"),
    "updates without a table": (at_entry(N_UPDATES, "<Q", 1 << 32), "BAD_PAYLOAD", "tables lie outside"),
    "many parts": (at_entry(N_PARTS, "<Q", 1 << 62), "BAD_PAYLOAD", "tables lie outside"),
    "many heads": (at_entry(N_HEADS, "<Q", 1 << 62), "BAD_PAYLOAD", "tables lie outside"),
    "heads without a table": (at_entry(N_HEADS, "<Q", 1 << 32), "BAD_PAYLOAD", "tables lie outside"),
    "module words without a table": (at_entry(N_TLS, "<Q", 1 << 61), "BAD_PAYLOAD", "thread-local modules"),
    "initialisers": (at_entry(N_INIT, "<Q", 2), "UNSUPPORTED", "several functions"),
    "initialiser elsewhere": (at_entry(N_INIT, "<Q", 1), "BAD_PAYLOAD", "not code of its own"),
    "unwind table too long": (at_entry(N_EH, "<Q", 1 << 32), "BAD_PAYLOAD", "unwind table is damaged"),
    "unwind table without end": (at_entry(N_EH, "<Q", 8), "BAD_PAYLOAD", "unwind table is damaged"),
}
DAMAGE["entry in the code"] = (lambda raw: struct.pack_into("<Q", raw, 24, struct.unpack_from("<Q", raw, 24)[0] - 0x1000),
                               "BAD_PAYLOAD", "")


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_payload(tmp_path: Path, program: Program, simple: Payload, name: str) -> None:
    change, code, words = DAMAGE[name]
    check(refusal(program, altered(tmp_path, simple, change)), code, words)


def relocation(payload: Payload, kind: int, **fields: int) -> Change:
    """Alters the first relocation of a type."""
    def edit(raw: bytearray) -> None:
        at, size = dynamic(raw, 7), dynamic(raw, 8)
        if kind == 7:
            at, size = dynamic(raw, 23), dynamic(raw, 2)
        start_of = payload.bytes_at(at)
        for offset in range(start_of, start_of + size, RELA.size):
            place, info, addend = RELA.unpack_from(raw, offset)
            if info & 0xFFFFFFFF == kind:
                info = fields.get("symbol", info >> 32) << 32 | fields.get("type", kind)
                RELA.pack_into(raw, offset, fields.get("place", place), info, fields.get("addend", addend))
                return
        raise AssertionError(f"no relocation of type {kind}")
    return edit


def dynamic(raw: bytes, tag: int) -> int:
    """The value of a dynamic entry."""
    return struct.unpack_from("<Q", raw, dynamic_entry(raw, tag) + 8)[0]


def dynamic_entry(raw: bytes, tag: int) -> int:
    for i in range(struct.unpack_from("<H", raw, 56)[0]):
        kind, _, offset, _, _, size, _, _ = PHDR.unpack_from(raw, 64 + i * PHDR.size)
        if kind == PT_DYNAMIC:
            return next(at for at in range(offset, offset + size, 16) if struct.unpack_from("<Q", raw, at)[0] == tag)
    raise AssertionError("no dynamic section")


def set_dynamic(tag: int, new_tag: int, value: int | None = None) -> Change:
    def edit(raw: bytearray) -> None:
        at = dynamic_entry(raw, tag)
        struct.pack_into("<Q", raw, at, new_tag)
        if value is not None:
            struct.pack_into("<Q", raw, at + 8, value)
    return edit


JUMP_SLOT, RELATIVE = 7, 8
RELOCATIONS: dict[str, tuple[int, dict[str, int], str, str]] = {
    "place in the image": (RELATIVE, {"place": 0x4000}, "BAD_PAYLOAD", "not inside its writable segments"),
    "place in the code": (RELATIVE, {"place": -1}, "BAD_PAYLOAD", "not inside its writable segments"),
    "place beyond all": (RELATIVE, {"place": (1 << 64) - 4}, "BAD_PAYLOAD", "not inside its writable segments"),
    "symbol that does not exist": (JUMP_SLOT, {"symbol": 1 << 20}, "BAD_PAYLOAD", "does not exist"),
    "symbol 0": (JUMP_SLOT, {"symbol": 0}, "BAD_PAYLOAD", "does not exist"),
    "IRELATIVE": (RELATIVE, {"type": 37}, "UNSUPPORTED", "relocation type 37"),
    "COPY": (RELATIVE, {"type": 5}, "UNSUPPORTED", "relocation type 5"),
    "TPOFF64": (RELATIVE, {"type": 18}, "UNSUPPORTED", "relocation type 18"),
    "a type nobody knows": (RELATIVE, {"type": 0x7FFFFFFF}, "UNSUPPORTED", "relocation type 2147483647"),
}


@pytest.mark.parametrize("name", RELOCATIONS)
def test_damaged_relocation(tmp_path: Path, program: Program, importing: Payload, name: str) -> None:
    kind, fields, code, words = RELOCATIONS[name]
    if fields.get("place") == -1:
        fields = {"place": importing.symbols["value_new"]}
    check(refusal(program, altered(tmp_path, importing, relocation(importing, kind, **fields))), code, words)


DYNAMIC: dict[str, tuple[int, int, int | None, str, str]] = {    # tag, tag it becomes, value
    "text relocations": (30, 22, None, "BAD_PAYLOAD", "relocations in its code"),
    "text relocations by flag": (30, 30, 4, "BAD_PAYLOAD", "relocations in its code"),
    "REL": (30, 17, 0x1000, "UNSUPPORTED", "packed"),
    "RELR": (30, 36, 0x1000, "UNSUPPORTED", "nopack-relative-relocs"),
    "initialiser": (30, 12, 0x1000, "UNSUPPORTED", "initialisers"),
    "relocations elsewhere": (7, 7, 0x1000, "BAD_PAYLOAD", "relocations lie outside"),
    "relocations without end": (8, 8, 1 << 40, "BAD_PAYLOAD", "relocations lie outside"),
    "relocations of another size": (9, 9, 8, "BAD_PAYLOAD", "relocations of 8 bytes"),
    "symbols of another size": (11, 11, 8, "BAD_PAYLOAD", "symbols of 8 bytes"),
    "symbols elsewhere": (6, 6, 0x1000, "BAD_PAYLOAD", "does not exist"),
    "names elsewhere": (5, 5, 0x1000, "BAD_PAYLOAD", "names lie outside"),
    "names that end early": (10, 10, 1, "BAD_PAYLOAD", "no valid name"),
    "versions elsewhere": (0x6FFFFFFE, 0x6FFFFFFE, 0x1000, "BAD_PAYLOAD", "no valid name or version"),
    "no versions at all": (0x6FFFFFFF, 0x6FFFFFFF, 0, "BAD_PAYLOAD", "no valid name or version"),
}


@pytest.mark.parametrize("name", DYNAMIC)
def test_damaged_dynamic_section(tmp_path: Path, program: Program, importing: Payload, name: str) -> None:
    tag, new_tag, value, code, words = DYNAMIC[name]
    check(refusal(program, altered(tmp_path, importing, set_dynamic(tag, new_tag, value))), code, words)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 200, 500, 4095, 4096, 8192, 12288 + 64])
def test_truncated_payload(tmp_path: Path, program: Program, simple: Payload, size: int) -> None:
    def cut(raw: bytearray) -> None:
        del raw[size:]

    check(refusal(program, altered(tmp_path, simple, cut)), "BAD_PAYLOAD", "")


def test_what_is_no_file(program: Program, tmp_path: Path, simple: Payload) -> None:
    os.mkfifo(tmp_path / "fifo")
    holder = os.open(tmp_path / "fifo", os.O_RDWR)
    try:
        check(refusal(program, tmp_path / "fifo"), "BAD_PAYLOAD", "not a regular file")
        check(refusal(program, Path("/dev/null")), "BAD_PAYLOAD", "not a regular file")
    finally:
        os.close(holder)


# ---- requests ---------------------------------------------------------------------------------------------------


def talk(pid: int, data: bytes, files: list[int] | None = None, close: bool = False) -> tuple[int, dict[str, object]] | None:
    """Send raw bytes; the reply's code and document, or None if the agent hung up without one."""
    path = str(Path(os.environ["HOTRELOAD_RUNTIME_DIR"]) / f"{pid}.sock")
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(path)
        if files:
            socket.send_fds(link, [data], files)
        else:
            link.sendall(data)
        if close:
            link.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):     # it leaves what comes after the request unread
            while part := link.recv(1 << 16):
                answer += part
    if not answer:
        return None
    _, _, code, length = abi.REPLY.unpack(answer[:abi.REPLY.size])
    assert len(answer) == abi.REPLY.size + length
    return code, json.loads(answer[abi.REPLY.size:])


def request(**fields: object) -> bytes:
    values = {"magic": abi.REQUEST_MAGIC, "abi": abi.ABI, "op": abi.Op.STATUS, "flags": 0, "when": 0, "timeout_ms": 0,
              "n_payloads": 0, "generation": 0, "build_id": bytes(32), "guard_ms": 0, **fields}
    return abi.REQUEST.pack(*values.values())


@pytest.mark.parametrize("data, code, words", [
    (request(magic=0), "BAD_REQUEST", "magic"),
    (b"GET / HTTP/1.1\r\n" + bytes(100), "BAD_REQUEST", "magic"),
    (request(abi=1), "ABI_MISMATCH", f"the request speaks version 1, the program version {abi.ABI}"),
    (request(op=99), "BAD_REQUEST", "operation 99"),
    (request(flags=0x80000000), "BAD_REQUEST", "bits this version does not know"),
    (request(build_id=bytes(31) + b"\1"), "BAD_REQUEST", "bits this version does not know"),
    (request(guard_ms=1), "BAD_REQUEST", "a guard of 1 ms, for operation 1"),
    (request(op=abi.Op.APPLY, guard_ms=abi.MAX_GUARD_MS + 1), "BAD_REQUEST", "a guard of 3600001 ms"),
    (request(op=abi.Op.APPLY, flags=abi.RequestFlags.DRY_RUN, guard_ms=1), "BAD_REQUEST", "a guard of 1 ms"),
    (request(n_payloads=3), "BAD_REQUEST", "announces 3 payloads, 0 descriptors"),
    (request(n_payloads=0xFFFFFFFF), "BAD_REQUEST", "announces 4294967295 payloads"),
    (request(op=abi.Op.APPLY), "BAD_REQUEST", "no payload"),
    (request(op=abi.Op.REVERT), "WRONG_IMAGE", "names no image"),
    (request(op=abi.Op.REVERT, build_id=b"\1" * 20), "WRONG_IMAGE", "build-id 0101"),
    (request(op=abi.Op.STATUS, generation=1), "BAD_REQUEST", "bits this version does not know"),
])
def test_malformed_request(program: Program, data: bytes, code: str, words: str) -> None:
    answer = talk(program.pid, data)
    assert answer is not None
    assert answer[0] == abi.Code[code]
    assert answer[1]["error"] == code and answer[1]["message"] == abi.CODES[code].sentence
    assert words in str(answer[1]["detail"])


def agent_descriptors(pid: int) -> list[str]:
    agent = next(t for t in Path(f"/proc/{pid}/task").iterdir() if t.name != str(pid))
    return sorted(os.listdir(agent / "fd"))


def test_descriptors_are_closed_whatever_happens(program: Program, simple: Payload) -> None:
    process.status(program.pid)
    before = agent_descriptors(program.pid)
    with open(simple.path, "rb") as file:
        files = [file.fileno()]
        for data, given in ((request(), files), (request(n_payloads=2), files), (request(magic=1), files * 3),
                            (request(op=abi.Op.APPLY, n_payloads=abi.MAX_PAYLOADS), files * (abi.MAX_PAYLOADS + 1)),
                            (request(op=abi.Op.APPLY, n_payloads=abi.MAX_PAYLOADS + 1), files * (abi.MAX_PAYLOADS + 1))):
            answer = talk(program.pid, data, given)
            assert answer is not None and answer[0] == abi.Code["BAD_REQUEST"]
        assert talk(program.pid, request()[:20], files * 2, close=True) is None
    process.status(program.pid)          # what came before is done when this is answered
    assert agent_descriptors(program.pid) == before


def test_connection_that_ends_early(program: Program) -> None:
    assert talk(program.pid, b"x", close=True) is None
    assert talk(program.pid, request()[:-1], close=True) is None
    assert process.status(program.pid).pid == program.pid


def test_client_that_stalls_is_given_up(program: Program) -> None:
    """The next one is served once the first has used up its time."""
    path = str(Path(os.environ["HOTRELOAD_RUNTIME_DIR"]) / f"{program.pid}.sock")
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        link.send(request()[:10])
        assert process.status(program.pid, timeout=60).pid == program.pid
        link.settimeout(60)
        assert link.recv(1) == b""


OTHER_USER = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
link = socket.socket(socket.AF_UNIX)
link.settimeout(60)
try:
    link.connect(sys.argv[1])
except PermissionError:
    print("no entry")
    raise SystemExit
link.sendall(bytes.fromhex(sys.argv[2]))
answer = b""
while part := link.recv(65536):
    answer += part
print(answer[12:].decode())
"""


def test_other_users_are_refused(target: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the directory's mode, and should that be opened, by the agent."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    directory = Path(os.environ["HOTRELOAD_RUNTIME_DIR"])
    with start(target) as running:
        path = directory / f"{running.pid}.sock"
        arguments = [sys.executable, "-c", OTHER_USER, str(path), request().hex()]

        def ask() -> str:
            return subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=60, cwd="/").stdout

        assert ask() == "no entry\n"
        directory.chmod(0o755)
        path.chmod(0o777)
        try:
            answer = ask()
        finally:
            directory.chmod(0o700)
        assert '"error":"NOT_PERMITTED"' in answer and "user 65534 asked, the process belongs to user 0" in answer
        assert process.status(running.pid).pid == running.pid
