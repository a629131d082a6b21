"""Back to an earlier generation, and forward again. Each test shows what runs on both sides."""
from __future__ import annotations

from pathlib import Path

import pytest
from runtimetools import SOURCES, Image, Payload, Recipe, Update, build, make_payload, maps, start

from hotreload_tool import abi, process
from livetools import Program


def revert(program: Program, image: Image, generation: int, **options: object) -> process.ApplyResult:
    return process.revert(program.pid, image.build_id.hex(), generation, **options)  # type: ignore[arg-type]


def refused(program: Program, image: Image, generation: int, **options: object) -> process.AgentError:
    before = process.status(program.pid).document
    with pytest.raises(process.AgentError) as caught:
        revert(program, image, generation, **options)
    assert process.status(program.pid).document == before
    return caught.value


@pytest.fixture(scope="module")
def threads(folder: Path) -> Image:
    return build(folder, "threads_revert", [SOURCES / "threads.c"])


def test_back_and_forth(target: Image, new_value: Payload, newer_value: Payload) -> None:
    with start(target) as program:
        program.ask("value", r"^value 101\n")
        process.apply(program.pid, [new_value.path])
        process.apply(program.pid, [newer_value.path])
        program.ask("value", r"^value -1\n")
        program.ask("twice", r"^twice 63\n")
        result = revert(program, target, 1)
        assert (result.already, result.images[0].generation, result.images[0].functions_live) == (False, 1, 2)
        program.ask("value", r"^value 1101\n", reject=r"value -1")
        program.ask("twice", r"^twice 42\n", reject="63")
        assert process.status(program.pid).images[0].id == new_value.id.hex()
        revert(program, target, 0)
        program.ask("value", r"^value 102\n", reject=r"value (-1|2)")
        program.ask("stored", r"^stored 103\n")
        image, = process.status(program.pid).images
        assert (image.generation, image.id, image.payloads) == (0, "0" * 64, [])
        process.apply(program.pid, [new_value.path], when="quiescent")
        program.ask("value", r"^value 2103\n", reject=r"value 1[01]")       # its static goes on where it was
        process.apply(program.pid, [newer_value.path], when="quiescent")
        program.ask("value", r"^value -1\n")
        revert(program, target, 0)                                          # both at once
        program.ask("value", r"^value 104\n")
        program.ask("twice", r"^twice 42\n")


def test_reverting_maps_nothing_anew(target: Image, new_value: Payload) -> None:
    with start(target) as program:
        process.apply(program.pid, [new_value.path])
        before = [m for m in maps(program.pid) if m.file == str(new_value.path)]
        for _ in range(3):
            revert(program, target, 0)
            process.apply(program.pid, [new_value.path])
        assert [m for m in maps(program.pid) if m.file == str(new_value.path)] == before
        assert not [m for m in maps(program.pid) if "w" in m.permissions and "x" in m.permissions]


def test_where_it_already_is(target: Image, new_value: Payload) -> None:
    with start(target) as program:
        assert revert(program, target, 0).already
        process.apply(program.pid, [new_value.path])
        assert revert(program, target, 1).already
        program.ask("value", r"^value 1100\n")


def test_what_cannot_be_reverted(target: Image, library: Image, new_value: Payload) -> None:
    with start(target) as program:
        process.apply(program.pid, [new_value.path])
        assert refused(program, target, 2).code is abi.Code["OUT_OF_ORDER"]
        assert refused(program, library, 0).code is abi.Code["WRONG_IMAGE"]
        program.ask("value", r"^value 1100\n")


def test_a_build_id_that_ends_in_zeros(folder: Path) -> None:
    image = build(folder, "zeros", [SOURCES / "target.c"], link=["-Wl,--build-id=0x00112233445566778899aabbccddeeff00000000"])
    payload = make_payload(folder, Recipe(image, "int value_new(void) { return 5; }", {"value": "value_new"}))
    with start(image) as program:
        process.apply(program.pid, [payload.path])
        program.ask("value", r"^value 5\n")
        revert(program, image, 0)
        program.ask("value", r"^value 101\n", reject="5")


def test_dry_run(target: Image, new_value: Payload) -> None:
    with start(target) as program:
        process.apply(program.pid, [new_value.path])
        result = revert(program, target, 0, dry_run=True)
        assert (result.dry_run, result.images[0].generation) == (True, 1)
        program.ask("value", r"^value 1100\n", reject="value 101")


def test_contents_go_back_unless_the_program_changed_them(target: Image, folder: Path) -> None:
    def word(n: int) -> bytes:
        return n.to_bytes(4, "little")

    flags = abi.UpdateFlags
    first = make_payload(folder, Recipe(target, "", {}, [
        Update("merged", word(5), word(50), flags.MERGE), Update("tuned", word(5), word(51), flags.MERGE),
        Update("greeting", b"hello", b"howdy", flags.CONSTANT)]))
    second = make_payload(folder, Recipe(target, "", {}, [
        Update("merged", word(50), word(500), flags.MERGE), Update("greeting", b"howdy", b"salve", flags.CONSTANT)],
        previous=first))
    with start(target) as program:
        process.apply(program.pid, [first.path])
        program.ask("data", r"^data 50 51 howdy 7\n")
        program.ask("change", r"^changed 52\n")
        process.apply(program.pid, [second.path])
        program.ask("data", r"^data 500 52 salve 7\n")
        result = revert(program, target, 0)
        program.ask("data", r"^data 5 52 hello 7\n", reject="50|howdy|salve")     # `tuned` is the program's now
        assert (result.images[0].updates_applied, result.images[0].updates_kept) == (4, 1)
        process.apply(program.pid, [first.path])
        program.ask("data", r"^data 50 52 howdy 7\n")


def test_what_was_not_updated_is_not_put_back(target: Image, folder: Path) -> None:
    """The patch kept a value; by chance it later becomes what the patch would have stored."""
    update = Update("tuned", (5).to_bytes(4, "little"), (7).to_bytes(4, "little"), abi.UpdateFlags.MERGE)
    payload = make_payload(folder, Recipe(target, "", {}, [update]))
    with start(target) as program:
        program.ask("change", r"^changed 6\n")
        process.apply(program.pid, [payload.path])
        program.ask("change", r"^changed 7\n")
        revert(program, target, 0)
        program.ask("data", r"^data 5 7 hello 7\n")


def test_another_history_after_a_revert(target: Image, new_value: Payload, folder: Path) -> None:
    """A different generation 1 must not be laid over code that may still be referred to."""
    overlapping = make_payload(folder, Recipe(target, "int value_new(void) { return 55; }", {"value": "value_new"}))
    beside = make_payload(folder, Recipe(target, "int value_new(void) { return 56; }", {"value": "value_new"},
                                         base=new_value.end))
    with start(target) as program:
        process.apply(program.pid, [new_value.path])
        revert(program, target, 0)
        with pytest.raises(process.AgentError) as caught:
            process.apply(program.pid, [overlapping.path])
        assert caught.value.code is abi.Code["NO_ARENA"] and "was reverted" in caught.value.detail
        program.ask("value", r"^value 101\n")
        assert process.status(program.pid).images[0].arena_used_end == new_value.end
        process.apply(program.pid, [beside.path])
        program.ask("value", r"^value 56\n")


def test_a_thread_in_what_is_reverted_blocks(threads: Image, folder: Path) -> None:
    source = """
    #include <unistd.h>
    int held_new(int fd) { char byte = 0; while (read(fd, &byte, 1) < 1) ; return 100 + !byte; }
    """
    payload = make_payload(folder, Recipe(threads, source, {"held": "held_new"}))
    with start(threads) as program:
        process.apply(program.pid, [payload.path])
        program.ask("start holder", r"^started")
        error = refused(program, threads, 0, timeout=0.5)
        assert error.code is abi.Code["DEADLINE"] and "(holder) is in code that changes" in error.detail
        at = error.document["blocked"]["address"] - payload.symbols["held_new"]
        assert 0 < at <= payload.sizes["held"]
        revert(program, threads, 0, when="now")
        program.ask("end", r"^ended")                                       # it ends in the code that stayed mapped
        program.ask("held", r"^held 1\n")


def test_many_generations_under_load(threads: Image, folder: Path) -> None:
    """45 generations forward, back in strides, forward again, with threads that would see a mix."""
    source = """
    int first(void); int second(void); extern int spin_length;
    int first_new(void) { return %(n)d; }
    int second_new(void) { return %(n)d; }
    int pair_new(void) { int one = first(); for (volatile int i = 0; i < spin_length; i++); return one != second(); }
    """
    names = {"first": "first_new", "second": "second_new", "pair": "pair_new"}
    chain: list[Payload] = []
    with start(threads) as program:
        program.ask("start spinner 3", r"^started")
        for n in range(1, 46):
            chain.append(make_payload(folder, Recipe(threads, source % {"n": n}, names, previous=chain[-1] if chain else None)))
            process.apply(program.pid, [chain[-1].path], when="quiescent", timeout=60)
        program.ask("first", r"^first 45\n")
        for generation in (44, 30, 7, 0):
            revert(program, threads, generation, timeout=60)
            program.ask("first", rf"^first {generation}\n")
            program.ask("run 20", r"^ran")
        for n, payload in enumerate(chain[:20], 1):
            process.apply(program.pid, [payload.path], when="quiescent", timeout=60)
            program.ask("first", rf"^first {n}\n")
        program.ask("end", r"^ended, mixed 0\n")
        assert program.finish() == 0
