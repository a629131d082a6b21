"""Random edits on running programs: each either goes live and is right, or is refused by a reason that fits."""
from __future__ import annotations

import collections
import itertools
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import emit
import mutate
import pytest
from builds import BuildFailed, Toolchain, available
from chains import APPLIED, BAD, INVALID, Outcome, Project, Session, Wrong, run_chain
from edits import KINDS, Editor, static_local_added
from machine import Machine, merged
from patcher import Patcher
from program import TYPES, Var, generate

FULL = os.environ.get("HOTRELOAD_TEST_SIZE") == "full"
CHAINS = 120 if FULL else 6


def chosen() -> Iterator[tuple[int, Toolchain]]:
    """Seeds and toolchains; of the few that a small run has, no two alike."""
    step = 1 if FULL else 7
    return itertools.islice(enumerate(itertools.islice(mutate.toolchains(), 0, None, step), 1), CHAINS)


def check(outcomes: list[Outcome]) -> None:
    bad = [str(o) for o in outcomes if o.verdict in (*BAD, INVALID)]
    assert not bad, "\n".join(bad)
    assert outcomes


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed, chain", [pytest.param(s, c, id=f"{s}-{c}".replace(" ", "_")) for s, c in chosen()])
def test_chain(seed: int, chain: Toolchain, runtime: Path) -> None:
    found = list(run_chain(seed, chain, mutate.EDITS if FULL else 8, runtime))
    check(found)
    assert collections.Counter(o.verdict for o in found)[APPLIED] > 0


# ---- the instruments themselves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["c", "c++"])
def test_edits_keep_programs_valid(language: str) -> None:
    """Every kind of edit is made somewhere, and the model runs what comes of it."""
    rng = random.Random(language)
    made = set()
    for kind in (k for k in KINDS if k.language in ("", language)):
        for _ in range(40):
            program = generate(rng, language)
            for _ in range(12):
                static_local_added(Editor(rng, program))      # several in one function
            if kind.make(Editor(rng, program)):
                made.add(kind.name)
                machine = Machine(program)
                for entry in range(len(program.entries)):
                    machine.command(f"c {entry} {rng.randrange(1 << 32)} 3")
                assert emit.sources(program)
                break
    assert made == {k.name for k in KINDS if k.language in ("", language)}


def test_the_same_seed_gives_the_same_program() -> None:
    first, second = (emit.sources(generate(random.Random(5), "c++")) for _ in range(2))
    assert first == second != emit.sources(generate(random.Random(6), "c++"))


def test_initialisers_merge_three_ways() -> None:
    v = Var(1, "v", "static", 0, [10, 20, 30, 40], "unsigned", True)
    assert merged([1, 2, 9], [1, 2, 3], v) == [10, 20, 9, 40]
    assert TYPES[v.ctype] == 0xFFFFFFFF


def test_a_wrong_patch_is_noticed(runtime: Path, tmp_path: Path, stack: ExitStack) -> None:
    """The process takes one edit, the model another: the conversation must fail."""
    commands, _ = available(["gcc", "clang"])
    if not commands:
        pytest.skip("there is no compiler")
    rng = random.Random(11)
    program = generate(rng, "c")
    project = Project(tmp_path, runtime, Toolchain(commands[0]))
    try:
        project.write(program)
    except BuildFailed as e:
        pytest.fail(str(e))
    binary = project.link()
    patcher = Patcher(project.image, stack)
    session = Session(patcher.start(binary), program)
    session.converse(rng)
    edited = program.copy()
    for f in edited.entries:
        edited.functions[f].body.args[-1].args[0].kind = "const"
        edited.functions[f].body.args[-1].args[0].value, edited.functions[f].body.args[-1].args[0].args = 4711, []
    project.write(edited)
    assert patcher.patch(session.process.pid, project.request()) is not None
    with pytest.raises(Wrong):
        session.converse(rng)
