"""Many generations: superseded code is unmapped when nobody needs it, and not before."""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from runtimetools import ARENA, SOURCES, Image, Payload, Recipe, build, make_payload, maps, start
from stamps import MARK, Series, Stamp, stamps

from hotreload_tool import abi, process
from livetools import Program

RING = 12
SOURCE = f"""
int first(void); int second(void);
int first_new(void) {{ return {MARK}; }}
int second_new(void) {{ return {MARK}; }}
int pair_new(void) {{ int one = first(); for (volatile int i = 0; i < 5; i++); return one != second(); }}
"""
NAMES = {"first": "first_new", "second": "second_new", "pair": "pair_new"}


@pytest.fixture(scope="module")
def threads(folder: Path) -> Image:
    return build(folder, "threads_generations", [SOURCES / "threads.c"])


@pytest.fixture(scope="module")
def ring(folder: Path, threads: Image) -> list[Stamp]:
    return stamps(folder, threads, SOURCE, NAMES, RING, transient=True)


@dataclass(frozen=True)
class Footprint:
    """Of a process: lines of its maps, bytes of its memory that are its own (/proc/PID/smaps), bytes of payloads."""
    mappings: int
    own: int
    payloads: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        text = Path(f"/proc/{pid}/smaps").read_text()
        own = sum(1024 * int(n) for n in re.findall(r"^(?:Private_Dirty|Private_Clean): +(\d+) kB", text, re.MULTILINE))
        image, = process.status(pid).images
        return cls(len(maps(pid)), own, image.arena_mapped)


def step(program: Program, series: Series, **options: object) -> process.ApplyResult:
    """One generation, whose number first() returns from then on."""
    path = series.next()
    result = process.apply(program.pid, [path], when="quiescent", timeout=60)
    path.unlink()
    n = series.generation
    program.ask("first", rf"^first {n}\n", reject=rf"^first (?!{n}\n)")
    return result


def test_generations_without_end(threads: Image, ring: list[Stamp], tmp_path: Path, full_size: bool) -> None:
    """32 busy threads, and addresses that are used over and over: an eighth of the arena is never exceeded by much."""
    series = Series(threads, ring, tmp_path)
    last = 10_000 if full_size else 300
    with start(threads) as program:
        step(program, series)
        program.ask("start server 32", r"^started")
        while series.generation < last // 3:
            step(program, series)
        early = Footprint.of(program.pid)
        while series.generation < last:
            step(program, series)
        late = Footprint.of(program.pid)
        print(f"{last} generations: {early} -> {late}")
        assert late.payloads < ARENA // 2
        assert late.mappings < early.mappings + 40
        assert late.own < early.own + 1024 * (last - last // 3)
        image, = process.status(program.pid).images
        assert image.generation == last and image.unmapped > last - RING
        program.ask("end", r"^ended, mixed 0\n", timeout=60)
        assert program.finish() == 0


# ---- what keeps superseded code --------------------------------------------------------------------------------

HELD = """
#include <unistd.h>
int first_new(void) { return %(n)d; }
int held_new(int fd) { char byte = 0; while (read(fd, &byte, 1) < 1) ; return %(n)d00 + !byte; }
void call_back(int);
int calls_back_new(int what) { call_back(what); return %(n)d000 + what; }
"""
HELD_NAMES = {"first": "first_new", "held": "held_new", "calls_back": "calls_back_new"}


@pytest.fixture(scope="module")
def pair(folder: Path, threads: Image) -> list[Payload]:
    """Generations 1, 2 and 3; the third is for the addresses of the first."""
    chain: list[Payload] = []
    for n in (1, 2, 3):
        chain.append(make_payload(folder, Recipe(threads, HELD % {"n": n}, HELD_NAMES, previous=chain[-1] if chain else None,
                                                 base=threads.arena if n == 3 else None, transient=True)))
    return chain


def refused(program: Program, payload: Payload, **options: object) -> process.AgentError:
    with pytest.raises(process.AgentError) as caught:
        process.apply(program.pid, [payload.path], **options)  # type: ignore[arg-type]
    return caught.value


def mapped(program: Program) -> set[int]:
    """Generations of which something is mapped."""
    image, = process.status(program.pid).images
    assert image.arena_mapped == sum(p.mapped for p in (*image.payloads, *image.reverted))
    return {p.generation for p in (*image.payloads, *image.reverted)}


@pytest.mark.parametrize("when", ["quiescent", "now"])
def test_addresses_are_used_again(threads: Image, pair: list[Payload], when: str) -> None:
    with start(threads) as program:
        for payload in pair[:2]:
            process.apply(program.pid, [payload.path], when="quiescent")
        assert mapped(program) == {1, 2}
        process.apply(program.pid, [pair[2].path], when=when)
        assert mapped(program) == {2, 3}
        program.ask("first", r"^first 3\n", reject="first [12]")
        image, = process.status(program.pid).images
        assert (image.generation, image.unmapped) == (3, 1)


def test_a_frame_keeps_the_code_that_it_is_in(threads: Image, pair: list[Payload]) -> None:
    """The thread goes on in code that two generations with `now` overtook; its addresses are not given to the third."""
    with start(threads) as program:
        process.apply(program.pid, [pair[0].path])
        program.ask("start holder", r"^started")
        process.apply(program.pid, [pair[1].path], when="now")
        error = refused(program, pair[2], when="now", timeout=1)
        assert error.code is abi.Code["DEADLINE"] and "where older code lies" in error.detail
        assert mapped(program) == {1, 2}
        program.ask("first", r"^first 2\n", reject="first [13]")
        program.ask("end", r"^ended")
        process.apply(program.pid, [pair[2].path], when="now", timeout=30)
        assert mapped(program) == {2, 3}
        program.ask("first", r"^first 3\n", reject="first [12]")


def test_a_coroutine_that_is_switched_out_keeps_the_code_it_will_go_on_in(threads: Image, pair: list[Payload]) -> None:
    """No thread is on its stack, so no look at threads finds it."""
    with start(threads) as program:
        process.apply(program.pid, [pair[0].path])
        program.ask("suspend", r"^suspended\n")
        process.apply(program.pid, [pair[1].path], when="quiescent")
        error = refused(program, pair[2], when="quiescent", timeout=1)
        assert error.code is abi.Code["DEADLINE"] and "memory holds an address" in error.detail
        assert mapped(program) == {1, 2}
        program.ask("resume", r"^returned 1121\n", reject="returned [23]")       # 1000 + 'y', in the old code


def test_code_in_use_is_never_laid_over(threads: Image, pair: list[Payload], folder: Path) -> None:
    """The second generation is live, so its addresses cannot be had."""
    third = make_payload(folder, Recipe(threads, HELD % {"n": 4}, HELD_NAMES, previous=pair[1], base=pair[0].end, transient=True))
    with start(threads) as program:
        for payload in pair[:2]:
            process.apply(program.pid, [payload.path], when="quiescent")
        assert refused(program, third).code is abi.Code["NO_ARENA"]
        program.ask("first", r"^first 2\n")


def test_what_is_not_declared_transient_stays(threads: Image, folder: Path) -> None:
    chain: list[Payload] = []
    with start(threads) as program:
        for n in range(1, 21):
            previous = chain[-1] if chain else None
            chain.append(make_payload(folder, Recipe(threads, HELD % {"n": n}, HELD_NAMES, previous=previous)))
            process.apply(program.pid, [chain[-1].path], when="quiescent")
        assert mapped(program) == set(range(1, 21))


def test_a_generation_comes_back_from_its_file(threads: Image, pair: list[Payload]) -> None:
    """Reverted, given back for another's sake, and applied again."""
    with start(threads) as program:
        for payload in pair[:2]:
            process.apply(program.pid, [payload.path], when="quiescent")
        process.apply(program.pid, [pair[2].path], when="quiescent")
        revert = process.revert(program.pid, threads.build_id.hex(), 2)
        assert revert.images[0].generation == 2
        program.ask("first", r"^first 2\n", reject="first 3")
        process.apply(program.pid, [pair[2].path], when="quiescent")
        program.ask("first", r"^first 3\n", reject="first 2")
        with pytest.raises(process.AgentError) as caught:
            process.revert(program.pid, threads.build_id.hex(), 1)
        assert caught.value.code is abi.Code["NO_CODE"]
        program.ask("first", r"^first 3\n", reject="first [12]")
        assert mapped(program) == {2, 3}
        process.revert(program.pid, threads.build_id.hex(), 0)
        program.ask("first", r"^first 0\n", reject="first [123]")
        process.apply(program.pid, [pair[0].path], when="quiescent")
        program.ask("first", r"^first 1\n", reject="first [023]")
        assert mapped(program) >= {1}


@pytest.mark.both_kinds
def test_a_revert_brings_code_back(threads: Image, folder: Path, tmp_path: Path, ring: list[Stamp]) -> None:
    """To a generation whose code was unmapped: its payload comes with the request. What lies at its addresses by then goes."""
    series = Series(threads, ring, tmp_path)
    build_id = threads.build_id.hex()
    files = []
    with start(threads) as program:
        for _ in range(RING):
            files.append(series.next())
            process.apply(program.pid, [files[-1]], when="quiescent", timeout=30)
        assert 3 not in mapped(program)
        for when in ("quiescent", "now"):
            with pytest.raises(process.AgentError) as caught:
                process.revert(program.pid, build_id, 3, payloads=[files[4]], when=when)
            assert caught.value.code is abi.Code["NO_CODE"]
        assert 5 not in mapped(program)
        tried = process.revert(program.pid, build_id, 3, dry_run=True, payloads=[files[2]])
        assert tried.images[0].generation == RING and 3 not in mapped(program)
        process.revert(program.pid, build_id, 3, payloads=[files[2]])
        program.ask("first", r"^first 3\n", reject=r"first (?!3\n)")
        process.apply(program.pid, [files[3]], when="quiescent")
        program.ask("first", r"^first 4\n", reject=r"first (?!4\n)")
        process.revert(program.pid, build_id, 0)
        program.ask("first", r"^first 0\n", reject=r"first [1-9]")
        program.ask("pair", r"^pair 0\n")
