"""`hotpatch attest`: what a process runs, by its memory. Tampered and foreign code is found and named."""
from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import Broken, Made, case_of, make
from casetools import Configuration

from hotreload_tool import cli, process
from hotreload_tool.verify import attest, memory
from hotreload_tool.verify.linked import Linked
from hotreload_tool.verify.space import Space
from hotreload_tool.verify.tables import Payload
from livetools import Program, clean_environment, runtime_directory

DONE, TAMPERED, NO_PROCESS, UNKNOWN = 0, 1, 3, 5

SOURCE = """
#include "case.h"
#include <sys/mman.h>
const int limit[4] = {1, 2, 3};
NOINLINE int twice(int n) { return 2 * n; }
NOINLINE int third(int n) { return twice(n) + limit[2]; }
void answer(const char *line) {
  unsigned long at = strtoul(line, 0, 16);
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  if (at) printf("%d\\n", mmap((void *)at, 4096, PROT_READ | PROT_EXEC, flags, -1, 0) == (void *)at);
  printf("%d\\n", third(4));
}
"""
SECOND = SOURCE.replace("2 * n", "20 * n").replace("{1, 2, 3}", "{1, 2, 4}")
THIRD = SECOND.replace("twice(n) + limit", "10 + twice(n) + limit")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Made:
    folder = tmp_path_factory.mktemp("attest")
    case = case_of(folder / "case", SOURCE, SECOND, THIRD)
    return make(case, Configuration.parse("gcc -O2 pie"), folder / "build", shared_folder)


@pytest.fixture
def program(built: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Program]:
    with runtime_directory() as sockets:
        monkeypatch.setenv("HOTRELOAD_RUNTIME_DIR", str(sockets))
        monkeypatch.setenv("HOTRELOAD_DIR", str(tmp_path / "state"))
        with Program([built.image], env=clean_environment(HOTRELOAD_RUNTIME_DIR=str(sockets))) as running:
            running.ask("0", r"^\.\n")
            yield running


def apply(program: Program, bundle: Path) -> None:
    assert cli.main(["apply", str(bundle), "--pid", str(program.pid), "--timeout", "60"]) == 0


def attested(capsys: pytest.CaptureFixture[str], program: Program, built: Made, *more: str) -> tuple[int, Any]:
    capsys.readouterr()
    words = ["attest", str(program.pid), "--json", "--timeout", "60", *more]
    code = cli.main([*words, *(w for b in built.bundles for w in ("--bundle", str(b)))] if not more else words)
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.both_kinds
def test_a_process_as_it_was_built_patched_and_reverted(program: Program, built: Made,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    steps = [(None, 0), (built.bundles[0], 1), (built.bundles[1], 2)]
    for bundle, generation in steps:
        if bundle is not None:
            apply(program, bundle)
        code, document = attested(capsys, program, built)
        image, = document["images"]
        assert (code, image["problems"], image["generation"]) == (DONE, [], generation)
        assert document["attested"] and image["checked"]["slots"] > 3 and image["checked"]["bytes"] > 10_000
        assert len(image["ids"]) == generation
    for generation in (1, 0):
        assert cli.main(["revert", "--pid", str(program.pid), "--to", str(generation), "--timeout", "60"]) == 0
        code, document = attested(capsys, program, built)
        assert (code, document["images"][0]["generation"]) == (DONE, generation), document


# ---- tampering --------------------------------------------------------------------------------------------------


def poke(program: Program, address: int, data: bytes) -> None:
    """Write into the process as a debugger does, whatever the page's protection."""
    handle = os.open(f"/proc/{program.pid}/mem", os.O_RDWR)
    try:
        assert os.pwrite(handle, data, address) == len(data)
    finally:
        os.close(handle)


def place(built: Made, name: str) -> int:
    return next(s.value for s in Linked(built.image.read_bytes(), "image").symbols if s.name == name and s.defined)


def flip(program: Program, at: int) -> None:
    with memory.Memory(program.pid) as read:
        poke(program, at, bytes([read.read(at, 1)[0] ^ 1]))


def _code_of_the_image(program: Program, built: Made, bias: int) -> None:
    flip(program, bias + place(built, "main.hr_body") + 3)


def _a_stub(program: Program, built: Made, bias: int) -> None:
    flip(program, bias + place(built, "twice"))


def _a_slot(program: Program, built: Made, bias: int) -> None:
    poke(program, bias + place(built, "third.hr_slot"), (bias + place(built, "answer.hr_body")).to_bytes(8, "little"))


def _a_constant(program: Program, built: Made, bias: int) -> None:
    flip(program, bias + place(built, "limit"))


def _code_of_the_payload(program: Program, built: Made, bias: int) -> None:
    flip(program, bias + payload_of(built).redirects[0].new + 1)


def _an_import(program: Program, built: Made, bias: int) -> None:
    """A call of the C library goes to the stack."""
    image = Linked(built.image.read_bytes(), "image")
    relocation = next(r for r in image.relocations if r.symbol and image.dynamic_symbol(r.symbol).symbol.name == "strtoul")
    with memory.Memory(program.pid) as read:
        anonymous = next(m for m in read.mappings if not m.has_file and m.path == "" and m.mode.startswith("rw"))
    poke(program, bias + relocation.offset, anonymous.start.to_bytes(8, "little"))


def _foreign_code(program: Program, built: Made, bias: int) -> None:
    arena = Space(Linked(built.image.read_bytes(), "image")).arena
    assert arena is not None
    program.ask(f"{bias + arena[1] - 8192:x}", r"^1\n")


def payload_of(built: Made) -> Payload:
    return Broken.of(built.bundles[0]).tables


@pytest.mark.parametrize("tamper, function, says", [
    pytest.param(_code_of_the_image, "main", "1 bytes are not what the image says", id="code-of-the-image"),
    pytest.param(_a_stub, "twice", "1 bytes are not what the image says", id="a-stub"),
    pytest.param(_a_slot, "third", "its slot leads to", id="a-slot"),
    pytest.param(_a_constant, "limit", "1 bytes are not", id="a-constant"),
    pytest.param(_code_of_the_payload, "twice", "1 bytes are not what prog.1.hotpatch says", id="code-of-the-payload"),
    pytest.param(_an_import, "strtoul", "the import leads to", id="an-import"),
    pytest.param(_foreign_code, "", "foreign code", id="foreign-code"),
])
def test_tampered_and_foreign_code_is_named(program: Program, built: Made, capsys: pytest.CaptureFixture[str],
                                            tamper: Callable[[Program, Made, int], None], function: str, says: str) -> None:
    apply(program, built.bundles[0])
    assert attested(capsys, program, built)[0] == DONE
    with memory.Memory(program.pid) as read:
        bias = read.images()[0].bias
    tamper(program, built, bias)
    code, document = attested(capsys, program, built)
    image, = document["images"]
    assert code == TAMPERED and not document["attested"]
    assert any(says in p for p in image["problems"]), image
    assert image["functions"] == ([function] if function else [])


def test_a_lying_agent(program: Program, built: Made, capsys: pytest.CaptureFixture[str],
                       monkeypatch: pytest.MonkeyPatch) -> None:
    honest = process.status(program.pid, 60.0)
    apply(program, built.bundles[0])
    monkeypatch.setattr(process, "status", lambda pid, timeout: honest)     # it says what was true before
    code, document = attested(capsys, program, built)
    assert code == TAMPERED
    assert document["images"][0]["problems"] == ["the agent claims generation 0; by what the slots hold it is 1"]


# ---- what cannot be compared ------------------------------------------------------------------------------------


def test_a_bundle_that_is_not_at_hand(program: Program, built: Made,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    """Code that nothing at hand accounts for is foreign, whoever brought it. The image is the process's own file."""
    apply(program, built.bundles[0])
    code, document = attested(capsys, program, built, "--image", str(built.image))
    assert code == TAMPERED
    problems = document["images"][0]["problems"]
    assert any("foreign code" in p for p in problems) and any("twice: its slot leads to" in p for p in problems)
    assert cli.main(["attest", str(program.pid), "--image", str(built.image)]) == TAMPERED
    said = " ".join(capsys.readouterr().err.split())
    assert f"looked for in {os.environ['HOTRELOAD_DIR']}; if they are elsewhere, set HOTRELOAD_DIR" in said


def test_no_such_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["attest", str(2**22 + 7)]) == NO_PROCESS
    assert "there is no process" in capsys.readouterr().err


def test_a_process_without_hotreload(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["attest", str(os.getpid())]) == NO_PROCESS
    assert "no image that was built with hotreload" in capsys.readouterr().err


def test_a_file_that_is_only_read_is_no_image(built: Made, capsys: pytest.CaptureFixture[str]) -> None:
    with open(built.image, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        assert cli.main(["attest", str(os.getpid())]) == NO_PROCESS
        assert "no image that was built with hotreload" in capsys.readouterr().err


def test_an_image_that_is_not_at_hand(program: Program, built: Made) -> None:
    with memory.Memory(program.pid) as read:
        found = attest.attest(read, read.images()[0], attest.known([], []))
    assert "no image with build-id" in found.unknown and not found.problems
