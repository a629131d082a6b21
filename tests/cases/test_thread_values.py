"""New thread-locals with initial values: what becomes of them when a patch is taken back and applied again."""
from __future__ import annotations

import pytest
from benchtools import ANSWER, BEFORE, Bench

from hotreload_tool import process

SOURCE = "static thread_local int own = 70; NOINLINE int used() { return ++own; }"
IN_ANOTHER = ("int other = 0; std::thread([&] { other = used(); }).join(); "
              "say(std::to_string(used()) + ' ' + std::to_string(other));")


def test_values_outlive_a_revert(bench: Bench) -> None:
    with bench.process() as child:
        made = bench.make(BEFORE + SOURCE + ANSWER % (IN_ANOTHER, 2))
        bench.apply(child, made)
        child.ask("a", r"71 71\nversion 2 a\n")
        process.revert(child.pid, bench.build_id, 0)
        child.ask("b", r"version 1 b\n")
        bench.apply(child, made)
        child.ask("c", r"72 71\nversion 2 c\n")


@pytest.mark.parametrize("when", ["now", "safepoint"])
def test_threads_must_be_halted(bench: Bench, when: str) -> None:
    with bench.process() as child:
        made = bench.make(BEFORE + SOURCE + ANSWER % (IN_ANOTHER, 2))
        with pytest.raises(process.AgentError, match="ask for --when quiescent"):
            bench.apply(child, made, when=when)
        child.ask("a", r"version 1 a\n")
        bench.apply(child, made)
        child.ask("b", r"71 71\nversion 2 b\n")
