"""Every step of prepare fails once: the process is as before, and the next apply works.

The runtime is built with -DHR_FAULTS: it fails the step whose name stands in a file (runtime/internal.h, HR_STEPS).
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtimetools import RUNTIME, SOURCES, Image, Payload, Recipe, Update, build, make_payload, settled_maps, start

from hotreload_tool import abi, process
from livetools import Program

STEPS = re.findall(r"X\((\w+)\)", (RUNTIME / "internal.h").read_text().split("#define HR_STEPS(X)")[1].split("enum")[0])
CODES = {"TRANSACTION": "NO_MEMORY", "HEADERS": "BAD_PAYLOAD", "HOLD": "WRONG_IMAGE", "RECORD": "NO_MEMORY", "COPY": "NO_MEMORY",
         "COPY_WRITE": "NO_MEMORY", "COPY_SEAL": "NO_MEMORY", "MAP": "NO_MEMORY",
         "MAP_BSS": "NO_MEMORY", "IMPORT": "MISSING_IMPORT", "RELOCATE": "BAD_PAYLOAD", "SEAL": "NO_MEMORY",
         "UNWIND": "INTERNAL", "TARGETS": "NO_MEMORY", "OPEN": "NO_MEMORY", "THREADS": "UNSUPPORTED", "STACKS": "NO_MEMORY",
         "CODES": "NO_MEMORY", "CLIENT": "DEADLINE"}


@pytest.fixture(scope="module")
def image(folder: Path) -> Image:
    return build(folder, "faulty", [SOURCES / "target.c"], runtime_flags=("-DHR_FAULTS",))


@pytest.fixture(scope="module")
def other(folder: Path) -> Image:
    return build(folder, "libfaulty.so", [SOURCES / "library.c"], flags=["-fPIC"], runtime_flags=("-DHR_FAULTS",),
                 link=["-shared"])


@pytest.fixture(scope="module")
def payloads(folder: Path, image: Image, other: Image) -> list[Path]:
    """A program's payload with everything in it: an import, a static, an update of a constant; and a library's."""
    source = """
    #include <stdlib.h>
    extern int counter;
    static int calls;
    static char large[8192];
    int value_new(void) { large[calls & 1] = 1; return 1000 * atoi(--calls ? "1" : "0") + counter; }
    """
    update = Update("greeting", b"hello", b"howdy", abi.UpdateFlags.CONSTANT)
    first = make_payload(folder, Recipe(image, source, {"value": "value_new"}, [update]))
    second = make_payload(folder, Recipe(other, "int library_new(void) { return 77; }", {"library_value": "library_new"}))
    return [first.path, second.path]


@pytest.fixture
def fault(tmp_path: Path) -> Path:
    path = tmp_path / "fault"
    path.write_text("")
    return path


@pytest.fixture
def program(image: Image, other: Image, payloads: list[Path], fault: Path) -> Iterator[Program]:
    with start(image, HR_FAULT_FILE=str(fault)) as running:
        running.ask(f"load {other.path}", r"^loaded\n")
        process.apply(running.pid, payloads, dry_run=True)       # libgcc_s is known to the loader now
        yield running


def test_every_step_has_its_test() -> None:
    assert sorted(CODES) == sorted(STEPS)


@pytest.mark.parametrize("step", CODES)
def test_failing_step_leaves_no_trace(program: Program, payloads: list[Path], fault: Path, step: str) -> None:
    before, mapped = process.status(program.pid).document, settled_maps(program.pid)
    fault.write_text(step)
    for _ in range(2):
        with pytest.raises(process.AgentError) as caught:
            process.apply(program.pid, payloads, when="quiescent")
        assert caught.value.code is abi.Code[CODES[step]], caught.value
        assert process.status(program.pid).document == before
        assert settled_maps(program.pid) == mapped
        program.ask("value", r"^value 10[12]\n", reject="1101")
        program.ask("library", r"^library 5[01]\n", reject="77")
        program.ask("data", r"^data 5 5 hello 7\n", reject="howdy")
    fault.write_text("")
    result = process.apply(program.pid, payloads, when="quiescent")
    assert [i.functions_live for i in result.images] == [1, 1]
    program.ask("value", r"^value 1102\n", reject=r"value 103")
    program.ask("library", r"^library 77\n", reject="52")
    program.ask("data", r"^data 5 5 howdy 7\n", reject="hello")
    assert program.finish() == 0


def test_second_image_fails_after_the_first_is_prepared(program: Program, folder: Path, image: Image, other: Image,
                                                        payloads: list[Path]) -> None:
    """The first is mapped, relocated, registered and its pages are open when the second turns out to be wrong."""
    wrong: Payload = make_payload(folder, Recipe(other, "int library_new(void) { return 78; }", {"library_value": "library_new"},
                                                 old_targets={"library_value": 16}))
    before, mapped = process.status(program.pid).document, settled_maps(program.pid)
    with pytest.raises(process.AgentError) as caught:
        process.apply(program.pid, [payloads[0], wrong.path])
    assert caught.value.code is abi.Code["UNEXPECTED_SLOT"]
    assert (process.status(program.pid).document, settled_maps(program.pid)) == (before, mapped)
    program.ask("value", r"^value 101\n", reject="1101")
    assert process.apply(program.pid, payloads).images[0].functions_live == 1
