"""Programs that print what they computed do the same plain and instrumented."""
from __future__ import annotations

import os
from pathlib import Path

import identical
import pytest
from builds import LEVELS
from corpus import SmallProgram, Unavailable, csmith_programs, tcc_programs

FULL = os.environ.get("HOTRELOAD_TEST_SIZE") == "full"

OWN = {
    "switches": """
        #include <stdio.h>
        static int pick(int n) { switch (n) { case 0: return 7; case 1: return 9; case 2: return 3; case 3: return 12;
          case 4: return 1; case 5: return 100; default: return -1; } }
        static const char *name(int n) { static const char *const names[] = {"a", "bc", "def"}; return names[n % 3]; }
        int main(void) { unsigned sum = 0; for (int i = 0; i < 50; i++) { static int last; last = pick(i % 7) + last * 3;
          sum = sum * 31 + (unsigned)last + (unsigned)name(i)[0]; } printf("%u\\n", sum); return (int)(sum & 63); }""",
    "pointers": """
        #include <stdio.h>
        #include <stdlib.h>
        static int up(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
        static int down(const void *a, const void *b) { return -up(a, b); }
        static int (*const orders[])(const void *, const void *) = {up, down};
        int main(void) { int v[] = {5, 3, 9, 1}; for (int k = 0; k < 2; k++) { qsort(v, 4, sizeof *v, orders[k]);
          for (int i = 0; i < 4; i++) printf("%d ", v[i]); } printf("%d\\n", orders[0] == up); return 3; }""",
}


def check(programs: list[SmallProgram], levels: tuple[str, ...], folder: Path) -> None:
    outcomes = identical.run_all(identical.trials(programs, levels), 2, folder, lambda done: None)
    bad = [str(o) for o in outcomes if o.verdict in (identical.DIFFERENT, identical.TOOL_ERROR)]
    assert not bad, "\n".join(bad)
    same = [o for o in outcomes if o.verdict == identical.SAME]
    assert len(same) > len(outcomes) * 2 // 3, "too many were left out:\n" + "\n".join(map(str, outcomes))


def test_own_programs_at_all_levels(tmp_path: Path) -> None:
    programs = []
    for name, text in OWN.items():
        (tmp_path / f"{name}.c").write_text(text)
        programs.append(SmallProgram("own", name, tmp_path / f"{name}.c"))
    check(programs, LEVELS, tmp_path)


def verdicts(text: str, level: str, folder: Path) -> set[str]:
    source = folder / "program.c"
    source.write_text(text)
    program = SmallProgram("own", "program", source, ("-std=gnu89",))
    return {identical.try_program(t, folder).verdict for t in identical.trials([program], (level,))}


def test_a_difference_is_seen(tmp_path: Path) -> None:
    """The runtime is in one of the two: the comparison itself must be able to fail."""
    text = """
        #include <stdio.h>
        extern char hr_self[] __attribute__((weak));
        int main(void) { printf("%d\\n", hr_self != 0); return 0; }"""
    assert verdicts(text, "-O1", tmp_path) == {identical.DIFFERENT}


def test_what_depends_on_addresses_is_left_out(tmp_path: Path) -> None:
    text = """
        #include <stdio.h>
        static int here;
        int main(void) { printf("%d\\n", (int)((unsigned long)&here & 4095)); return 0; }"""
    assert verdicts(text, "-O1", tmp_path) == {identical.LEFT_OUT}


@pytest.mark.long
@pytest.mark.timeout(7200 if FULL else 300)
def test_generated_programs(tmp_path: Path) -> None:
    try:
        programs = list(csmith_programs(200 if FULL else 4, tmp_path / "programs", first=1))
    except Unavailable as e:
        pytest.skip(str(e))
    check(programs, LEVELS if FULL else ("-O0", "-O2", "-Os"), tmp_path)


@pytest.mark.long
@pytest.mark.timeout(7200 if FULL else 300)
def test_programs_of_a_compiler_test_suite(tmp_path: Path) -> None:
    try:
        programs = list(tcc_programs())
    except Unavailable as e:
        pytest.skip(str(e))
    check(programs if FULL else programs[::12], LEVELS if FULL else ("-O1", "-O3"), tmp_path)
