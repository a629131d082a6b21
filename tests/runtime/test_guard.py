"""Patches on probation: new code that crashes is taken back, and what becomes of the signal."""
from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from runtimetools import SOURCES, Image, Payload, Recipe, Update, build, make_payload, start

from hotreload_tool import abi, guard, process
from livetools import Program

LONG = 600.0      # seconds: a guard that does not end while a test runs
HEAD = """
#include <signal.h>
#include <stdlib.h>
#include <string.h>
extern int counter;
int crash(void);
"""
CRASHES = {
    "fault": ("return *(volatile int *)16;", signal.SIGSEGV),
    "below": ("return crash() + 1;", signal.SIGSEGV),                    # in old code that the new code called
    "library": ("const char *volatile none = 0; return (int)strlen(none) + 1;", signal.SIGSEGV),
    "astray": ("int (*volatile none)(void) = 0; return none() + 1;", signal.SIGSEGV),
    "into data": ("int (*volatile data)(void) = (int (*)(void))&counter; return data() + 1;", signal.SIGSEGV),
    "abort": ("abort();", signal.SIGABRT),
    "instruction": ("__builtin_trap();", signal.SIGILL),
    "division": ("volatile int zero = 0; return 100 / zero;", signal.SIGFPE),
    "bus": ("return raise(SIGBUS) + 1;", signal.SIGBUS),
}


def body(code: str) -> str:
    return f"{HEAD}int value_new(void) {{ {code} }}\n"


@pytest.fixture(scope="module")
def image(folder: Path) -> Image:
    return build(folder, "crashes", [SOURCES / "crashes.c"])


@pytest.fixture(scope="module")
def polling(folder: Path) -> Image:
    return build(folder, "crashes_polling", [SOURCES / "crashes.c"], flags=["-DPOLLS"])


@pytest.fixture(scope="module")
def faulty(folder: Path, image: Image) -> Payload:
    return make_payload(folder, Recipe(image, body(CRASHES["fault"][0]), {"value": "value_new"},
                                       [Update("greeting", b"hello", b"howdy", abi.UpdateFlags.CONSTANT)]))


@pytest.fixture(scope="module")
def sound(folder: Path, image: Image) -> Payload:
    return make_payload(folder, Recipe(image, "int value_new(void) { return 7; }", {"value": "value_new"}))


def arm(program: Program, payload: Payload, seconds: float = LONG, when: str = "quiescent") -> None:
    assert process.apply(program.pid, [payload.path], when=when, guard=seconds).document["guard_ms"] == int(1000 * seconds)


def report(program: Program) -> dict[str, object]:
    said = guard.read(program.pid)
    assert said is not None
    return said


# ---- what is a crash -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["now", "quiescent"])
def test_the_thread_goes_on_at_its_recovery_safepoint(image: Image, faulty: Payload, when: str) -> None:
    with start(image) as program:
        arm(program, faulty, when=when)
        assert report(program)["state"] == "armed"
        program.ask("data", r"^data howdy\n")
        program.ask("safely", r"^recovered from 11 after 1, blocked 0\n")
        program.ask("value", r"^value 101\n")
        program.ask("data", r"^data hello\n", reject="howdy")
        program.ask("generation", r"^generation 0\n")
        said = process.status(program.pid).document["guard"]
        assert said == report(program)
        assert (said["state"], said["signal"], said["certain"], said["reverted"], said["resumed"], said["fault_address"]) == (
            "fired", "SIGSEGV", True, True, True, 16)
        assert said["images"] == [{"build_id": image.build_id.hex(), "generation": 1, "before": 0}]
        assert guard.function_at(faulty.path, said["address"]) == "value_new"
        assert process.status(program.pid).images[0].generation == 0


@pytest.mark.parametrize("kind", CRASHES)
def test_every_kind_of_crash(image: Image, folder: Path, kind: str) -> None:
    code, number = CRASHES[kind]
    payload = make_payload(folder, Recipe(image, body(code), {"value": "value_new"}))
    with start(image) as program:
        arm(program, payload)
        program.ask("safely", rf"^recovered from {number.value} after 1")
        program.ask("safely", r"^safely 101\n")
        said = report(program)
        assert (said["state"], said["signal"], said["certain"], said["resumed"]) == ("fired", number.name, True, True)
        program.ask("actions", r"^actions \?\?\?\?\?\n")      # the guard's time is not over


def test_without_a_recovery_safepoint_the_signal_takes_its_course(image: Image, faulty: Payload) -> None:
    for ask, guarded in (("value", True), ("plainly", True), ("value", False)):
        with start(image) as program:
            process.apply(program.pid, [faulty.path], guard=LONG if guarded else 0)
            program.send(f"{ask}\n")
            assert program.wait() == -signal.SIGSEGV
            said = guard.read(program.pid)
            assert (said is not None) is guarded
            if said:
                assert (said["state"], said["reverted"], said["resumed"]) == ("fired", True, False)


def test_a_crash_elsewhere_is_none_of_its_business(image: Image, sound: Payload) -> None:
    with start(image) as program:
        arm(program, sound)
        program.ask("value", r"^value 7\n")
        program.send("crash\n")
        assert program.wait() == -signal.SIGSEGV
        assert report(program)["state"] == "armed"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_signal_that_somebody_sends_is_no_crash(image: Image, sound: Payload, number: signal.Signals) -> None:
    with start(image) as program:
        arm(program, sound)
        os.kill(program.pid, number)
        assert program.wait() == -number
        assert report(program)["state"] == "armed"


def test_every_thread_that_crashes_goes_on(image: Image, faulty: Payload) -> None:
    with start(image) as program:
        arm(program, faulty)
        program.ask("crowd", r"^crowd [1-8]\n")      # who comes late calls the old code
        program.ask("value", r"^value 1\d\d\n")
        assert report(program)["reverted"]


def test_overflowing_stack(image: Image, folder: Path) -> None:
    """Where the thread has a signal stack, as without us."""
    code = "static volatile int depth; volatile char room[512]; room[0] = (char)depth++; return value_new() + room[0];"
    payload = make_payload(folder, Recipe(image, body(code).replace("int value_new", "__attribute__((noinline)) int value_new"),
                                          {"value": "value_new"}))
    with start(image) as program:
        program.ask("stack", r"^stack 0\n")
        program.ask("install onstack", r"^installed 0\n")
        arm(program, payload)
        program.ask("value", r"^jumped out\n")
        program.ask("handled", r"^handled 11 on stack 1\n")
        assert report(program)["reverted"]
        program.ask("value", r"^value 101\n")


def test_a_place_whose_function_has_returned_is_not_used(image: Image, faulty: Payload) -> None:
    with start(image) as program:
        program.ask("declare", r"^declared\n")
        arm(program, faulty)
        program.send("value\n")
        assert program.wait() == -signal.SIGSEGV
        assert (report(program)["reverted"], report(program)["resumed"]) == (True, False)
        assert "went back" not in program.transcript


def test_children_have_no_guard(image: Image, faulty: Payload) -> None:
    with start(image) as program:
        arm(program, faulty)
        program.ask("child", r"^child -11\n")
        assert report(program)["state"] == "armed"
        program.ask("safely", r"^recovered from 11")
        program.ask("child", r"^child 0\n")


# ---- handlers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["install", "install onstack", "install once"])
def test_the_program_s_own_handler_gets_its_signal(image: Image, faulty: Payload, kind: str) -> None:
    with start(image) as program:
        program.ask("stack", r"^stack 0\n")
        program.ask(kind, r"^installed 0\n")
        arm(program, faulty)
        program.ask("actions", r"^actions \?\?\?\?\?\n")
        program.ask("crash", r"^jumped out\n")          # not in new code: the guard stays
        program.ask("handled", rf"^handled 11 on stack {int('onstack' in kind)}\n")
        if "once" in kind:
            program.ask("actions", r"^actions d\?\?\?\?\n")
            return
        assert report(program)["state"] == "armed"
        program.ask("value", r"^jumped out\n")
        assert (report(program)["reverted"], report(program)["resumed"]) == (True, False)
        program.ask("value", r"^value 101\n")


def test_handlers_come_back_when_the_guard_ends(image: Image, sound: Payload, folder: Path) -> None:
    with start(image) as program:
        program.ask("install", r"^installed 0\n")
        arm(program, sound)
        program.ask("actions", r"^actions \?\?\?\?\?\n")
        process.revert(program.pid, image.build_id.hex(), 0)
        program.ask("actions", r"^actions jdddd\n")
        assert report(program)["state"] == "ended"
        arm(program, sound, 0.2)
        said = guard.wait(program.pid, 0, {})
        assert said is not None and said["state"] == "passed"
        program.ask("actions", r"^actions jdddd\n")
        program.ask("value", r"^value 7\n")
        program.ask("crash", r"^jumped out\n")
    assert not list(Path(os.environ["HOTRELOAD_RUNTIME_DIR"]).glob(f"{program.pid}.guard")) or program.process.returncode < 0


def test_a_handler_installed_meanwhile_has_it_its_way(image: Image, faulty: Payload) -> None:
    with start(image) as program:
        arm(program, faulty)
        program.ask("install", r"^installed 0\n")
        program.ask("value", r"^jumped out\n")
        assert report(program)["state"] == "armed"      # the guard does not see it
        process.revert(program.pid, image.build_id.hex(), 0)
        program.ask("actions", r"^actions jdddd\n")


def test_a_handler_that_calls_what_was_there_before(image: Image, faulty: Payload) -> None:
    """The program's handler keeps ours as the former one. Guards that come later must not run in circles."""
    with start(image) as program:
        program.ask("install", r"^installed 0\n")
        arm(program, faulty)
        program.ask("install chain", r"^installed 0\n")
        program.ask("value", r"^jumped out\n")          # chain -> ours, which takes back -> the first handler
        assert report(program)["reverted"]
        for _ in range(3):
            arm(program, faulty)
            program.ask("crash", r"^jumped out\n")
            assert report(program)["state"] == "armed"
            program.ask("value", r"^jumped out\n")
            assert report(program)["reverted"]
            program.ask("value", r"^value 1\d\d\n")
        process.apply(program.pid, [faulty.path])
        program.ask("actions", r"^actions cdddd\n")


def test_an_ignored_signal(image: Image, sound: Payload) -> None:
    with start(image) as program:
        program.ask("install ignore", r"^installed 0\n")
        arm(program, sound)
        os.kill(program.pid, signal.SIGSEGV)
        program.ask("value", r"^value 7\n")
        program.send("crash\n")                           # the kernel ignores no fault
        assert program.wait() == -signal.SIGSEGV


# ---- its end -----------------------------------------------------------------------------------------------------------


def test_the_next_patch_ends_it(image: Image, sound: Payload, folder: Path) -> None:
    crashing = make_payload(folder, Recipe(image, body("return crash() + 1;"), {"value": "value_new"}, previous=sound))
    with start(image) as program:
        arm(program, sound)
        begun = time.time()
        arm(program, crashing)
        program.ask("safely", r"^recovered from 11")
        program.ask("value", r"^value 7\n")              # the generation before, not the program as built
        said = report(program)
        assert said["images"] == [{"build_id": image.build_id.hex(), "generation": 2, "before": 1}]
        with pytest.raises(guard.Crashed, match="generation 2 crashed: SIGSEGV in value_new") as caught:
            guard.wait(program.pid, begun, {image.build_id.hex(): crashing.path})
        assert caught.value.exit_code == 1 and "generation 1 is live again" in caught.value.detail
        with pytest.raises(process.AgentError, match="on probation"):
            process.apply(program.pid, [crashing.path], dry_run=True)
        process.revert(program.pid, image.build_id.hex(), 0)
        program.ask("value", r"^value 101\n")
        program.ask("actions", r"^actions ddddd\n")


def test_a_process_that_polls(folder: Path, polling: Image) -> None:
    from concurrent.futures import ThreadPoolExecutor

    payload = make_payload(folder, Recipe(polling, body(CRASHES["fault"][0]), {"value": "value_new"}))
    with start(polling) as program, ThreadPoolExecutor(1) as pool:
        def apply(seconds: float) -> None:
            waiting = pool.submit(process.apply, program.pid, [payload.path], guard=seconds, timeout=60)
            while program.ask("poll", r"^poll (\d)\n")[1] == "0":
                pass
            assert waiting.result(60).images[0].functions_live == 1

        apply(LONG)
        program.ask("safely", r"^recovered from 11")
        apply(0.1)
        assert (guard.wait(program.pid, 0, {}) or {})["state"] == "passed"
        program.ask("poll", r"^poll 0\n")
        program.ask("actions", r"^actions ddddd\n")
        program.send("value\n")                           # its time is over
        assert program.wait() == -signal.SIGSEGV


def test_no_report_no_guard(image: Image, sound: Payload, tmp_path: Path) -> None:
    """A patch that can't be guarded as asked is not applied."""
    with start(image) as program:
        path = Path(os.environ["HOTRELOAD_RUNTIME_DIR"]) / f"{program.pid}.guard"
        path.mkdir()
        with pytest.raises(process.AgentError, match="report file of the guard") as caught:
            process.apply(program.pid, [sound.path], guard=LONG)
        assert caught.value.exit_code == 1
        path.rmdir()
        program.ask("value", r"^value 101\n")
        program.ask("actions", r"^actions ddddd\n")
        arm(program, sound)
        program.ask("value", r"^value 7\n")
        assert program.finish() == 0
        assert not path.exists()                          # nothing to tell


def test_a_report_that_somebody_cuts(image: Image, faulty: Payload) -> None:
    with start(image) as program:
        arm(program, faulty)
        os.truncate(Path(os.environ["HOTRELOAD_RUNTIME_DIR"]) / f"{program.pid}.guard", 0)
        program.ask("safely", r"^recovered from 11")
        program.ask("value", r"^value 101\n")
        assert process.status(program.pid).document["guard"]["state"] == "fired"
        process.apply(program.pid, [faulty.path])          # the guard writes that it ended
        assert program.finish() == 0
