"""What an agent takes from its process, and what a patch does to its pages."""
from __future__ import annotations

import contextlib
import os
import re
import select
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from runtimetools import RUNTIME, SOURCES, Image, Payload, Recipe, Update, build, make_payload, maps, run, smaps, start

from hotreload_tool import abi, process
from livetools import REPLY_SECONDS

DESCRIPTORS = 4          # of the agent's own table: three times /dev/null, and its socket
ACCEPT = "288"           # accept4 (asm/unistd_64.h)
RESIDENT = 1024          # KiB that a process may grow by; benchmarks/footprint.py measures
STEPS = re.findall(r"^HR_STEP\((\w+), (?:PREPARE|MOMENT|COMMIT|REPORT),", (RUNTIME / "hr_steps.def").read_text(), re.MULTILINE)
FEWEST = 25              # steps at which an apply stops


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """The same program without the tool."""
    path = folder / "plain"
    run(["gcc", "-O2", "-g", f"-I{SOURCES}", f"-I{SOURCES.parents[1] / 'runtime'}", "-o", path, SOURCES / "target.c", "-pthread",
         "-ldl"])
    return path


def tasks(pid: int) -> list[int]:
    return sorted(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir())


def agent_of(pid: int) -> Path:
    found, = [Path(f"/proc/{pid}/task/{tid}") for tid in tasks(pid)
              if Path(f"/proc/{pid}/task/{tid}/comm").read_text() == "hotreload\n"]
    return found


def idle_agent(pid: int) -> Path:
    """When it waits for a client."""
    agent = agent_of(pid)
    while (agent / "syscall").read_text().split()[0] != ACCEPT:
        pass
    return agent


def resident(pid: int) -> int:
    return sum(counts["Rss"] for _, counts in smaps(pid))


# ---- threads, descriptors, memory, wake-ups --------------------------------------------------------------------------


def test_one_thread_and_no_descriptor_of_the_program_s(target: Image, plain: Path, new_value: Payload) -> None:
    with start(target) as ours, start(plain) as theirs:
        for patched in (False, True):
            if patched:
                process.apply(ours.pid, [new_value.path], when="quiescent")
                process.revert(ours.pid, target.build_id.hex(), 0)
            assert len(tasks(ours.pid)) == len(tasks(theirs.pid)) + 1
            assert ours.ask("descriptors", "^(.*)descriptors\n")[1] == theirs.ask("descriptors", "^(.*)descriptors\n")[1]
            held = sorted(os.readlink(fd) for fd in (idle_agent(ours.pid) / "fd").iterdir())
            assert held[:3] == ["/dev/null"] * 3 and held[3].startswith("socket:")
            assert len(held) == DESCRIPTORS


def test_little_memory(target: Image, plain: Path) -> None:
    with start(target) as ours, start(plain) as theirs:
        assert resident(ours.pid) - resident(theirs.pid) < RESIDENT
        bias = process.status(ours.pid).images[0].load_bias
        arena = [counts for m, counts in smaps(ours.pid) if m.start == bias + target.arena]
        assert len(arena) == 1 and arena[0]["Rss"] == 0


def switches(task: Path) -> list[str]:
    return [line for line in (task / "status").read_text().splitlines() if "ctxt_switches" in line]


def test_no_wake_ups_when_idle(target: Image, new_value: Payload) -> None:
    """The agent sleeps while the program works, also after a patch. The control: a question wakes it."""
    with start(target) as ours:
        process.apply(ours.pid, [new_value.path], when="quiescent")
        process.status(ours.pid)
        agent = idle_agent(ours.pid)
        before = switches(agent)
        for _ in range(500):
            ours.ask("twice", "^twice 42\n")
        assert switches(agent) == before
        process.status(ours.pid)
        assert switches(agent) != before


# ---- pages -------------------------------------------------------------------------------------------------------------


def check_pages(pid: int, path: Path) -> None:
    """No page can be written and executed; no page of code, the program's or a payload's, was ever written: it would be
    anonymous then, and no longer the file's (proc(5))."""
    for mapping, counts in smaps(pid):
        assert not ("w" in mapping.permissions and "x" in mapping.permissions), mapping
        if "x" in mapping.permissions:
            assert counts["Anonymous"] == 0, mapping
    assert any(m.file == str(path) and "x" in m.permissions for m in maps(pid))


@pytest.fixture(scope="module")
def faulty(folder: Path) -> Image:
    return build(folder, "stopping", [SOURCES / "target.c"], runtime_flags=("-DHR_FAULTS",))


@pytest.fixture(scope="module")
def rich(folder: Path, faulty: Image) -> Payload:
    """A payload with an import, variables, zeros, and a constant that changes in place."""
    source = """
    #include <stdlib.h>
    static int calls;
    static char large[8192];
    int value_new(void) { large[calls & 1] = 1; return 1000 + atoi("1") + calls++; }
    """
    return make_payload(folder, Recipe(faulty, source, {"value": "value_new"},
                                       [Update("greeting", b"hello", b"howdy", abi.UpdateFlags.CONSTANT)]))


@contextlib.contextmanager
def fifo(path: Path) -> Iterator[int]:
    os.mkfifo(path)
    opened = os.open(path, os.O_RDWR)
    yield opened
    os.close(opened)


def test_at_every_step(faulty: Image, rich: Payload, tmp_path: Path) -> None:
    """The agent stops at each of its steps (runtime/faults.c), each time, and /proc/PID/smaps is read."""
    fault = tmp_path / "fault"
    fault.write_text("")
    with (fifo(tmp_path / "fault.reached") as reached, fifo(tmp_path / "fault.go") as go, ThreadPoolExecutor(1) as pool,
          start(faulty, HR_FAULT_FILE=str(fault)) as program):
        check_pages(program.pid, faulty.path)
        fault.write_text(" ".join(f"{step}:stop:0" for step in STEPS))
        answer = pool.submit(process.apply, program.pid, [rich.path], when="quiescent", timeout=REPLY_SECONDS)
        stops = 0
        while not answer.done():
            if select.select([reached], [], [], 0.1)[0]:
                os.read(reached, 1)
                check_pages(program.pid, faulty.path)
                stops += 1
                os.write(go, b"\0")
        fault.write_text("")
        assert answer.result().images[0].functions_live == 1
        assert stops > FEWEST
        check_pages(program.pid, faulty.path)
        program.ask("value", "^value 1001\n")
        program.ask("data", "^data 5 5 howdy 7\n")


def test_read_all_the_time(faulty: Image, rich: Payload) -> None:
    """The same without stops: as often as it can be read while patches come and go."""
    over = threading.Event()
    reads = 0

    with start(faulty) as program:
        def patch() -> None:
            for when in ("now", "quiescent") * 10:
                process.apply(program.pid, [rich.path], when=when, timeout=REPLY_SECONDS)
                process.revert(program.pid, faulty.build_id.hex(), 0, when=when, timeout=REPLY_SECONDS)
            over.set()

        patching = threading.Thread(target=patch)
        patching.start()
        while not over.is_set() and patching.is_alive():
            check_pages(program.pid, faulty.path)
            reads += 1
        patching.join(REPLY_SECONDS)
        assert over.is_set() and reads > 10


def of_file(pid: int, path: Path, permissions: str) -> dict[str, int]:
    total = {"Anonymous": 0}
    for mapping, counts in smaps(pid):
        if mapping.file == str(path) and mapping.permissions == permissions:
            for name, kib in counts.items():
                total[name] = total.get(name, 0) + kib
    return total


def test_pages_that_a_patch_does_not_touch_stay_shared(target: Image, folder: Path) -> None:
    """Two processes of one program. One is patched: its code stays shared with the other's, and of its data no more than the
    pages of one slot and one constant become its own."""
    payload = make_payload(folder, Recipe(target, "int value_new(void) { return 5; }", {"value": "value_new"}))
    with start(target) as patched, start(target) as other_one:
        before = sum(of_file(patched.pid, target.path, p)["Anonymous"] for p in ("r--p", "rw-p"))
        process.apply(patched.pid, [payload.path], when="quiescent")
        patched.ask("value", "^value 5\n")
        other_one.ask("value", "^value 101\n")
        code = of_file(patched.pid, target.path, "r-xp")
        assert code["Anonymous"] == 0
        assert code["Shared_Clean"] + code["Shared_Dirty"] > 0.5 * code["Rss"] > 0     # the rest the other one has not run
        grown = sum(of_file(patched.pid, target.path, p)["Anonymous"] for p in ("r--p", "rw-p")) - before
        assert grown <= 64, f"{grown} KiB"
