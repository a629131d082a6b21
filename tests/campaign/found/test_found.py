"""What campaigns found, each reduced to a small program. None of it may come back."""
from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from patcher import Live

from hotreload_tool import compiler
from hotreload_tool.errors import Refused

MAIN_C = r"""
#include <stdio.h>
int answer(int);
int main(void)
{
  int (*volatile chosen)(int) = answer;
  int n;
  puts("ready");
  fflush(stdout);
  while (scanf("%d", &n) == 1) {
    printf("%d\n", chosen(n));
    fflush(stdout);
  }
  return 0;
}
"""


def live(stack: ExitStack, runtime: Path, text: str, flags: Sequence[str] = ("-O2",), command: str = "gcc",
         link: Sequence[str] = (), shared: bool = False) -> Live:
    """`text` is a.c, which has `answer`."""
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")
    ours = compiler.flags([command], "c", {"PATH": os.environ["PATH"]})
    files = {"a.c": text} if shared else {"a.c": text, "main.c": MAIN_C}
    return Live(stack, runtime, files, {".c": [command, *flags, *ours]}, [command, *link], host=MAIN_C if shared else "")


COUNTER = """
static int total = 5;
static void add(int n) { static int calls = 100; calls += 1; total += n + calls - calls; }
int answer(int n) { add(n); return total; }
"""


def test_state_that_is_no_longer_written_keeps_its_value(runtime: Path, stack: ExitStack) -> None:
    """A compiler that sees no write to a static variable may use its initial value instead."""
    program = live(stack, runtime, COUNTER)
    assert program.ask("7") == "12"
    assert program.patch(a_c=("add(n); return total;", "return total * 10;"))
    assert program.ask("7") == "120"


@pytest.mark.parametrize("flags", [("-O2",), ("-O2", "-g0")])
def test_state_that_clang_folds_away_is_refused(flags: tuple[str, ...], runtime: Path, stack: ExitStack) -> None:
    if "-fkeep-persistent-storage-variables" in (compiler.flags(["clang"], "c", {"PATH": os.environ["PATH"]})
                                                 if shutil.which("clang") else ()):
        pytest.skip("this clang keeps it")
    program = live(stack, runtime, COUNTER, flags, "clang")
    assert program.ask("7") == "12"
    with pytest.raises(Refused) as refused:
        program.patch(a_c=("add(n); return total;", "return total * 10;"))
    assert {r.code for r in refused.value.refusals} == {"variable-folded"}
    assert program.ask("7") == "19"


FLAG = """
static %sunsigned long level = 3;
void raise(void) { level = 500; }
int answer(int n) { if (n) raise(); return (int)level; }
"""


@pytest.mark.parametrize("storage", ["", "__thread "])
@pytest.mark.parametrize("flags", [("-O1",), ("-O1", "-gdwarf-4"), ("-O1", "-g0")])
def test_a_variable_that_clang_keeps_in_a_bit(flags: tuple[str, ...], storage: str, runtime: Path, stack: ExitStack) -> None:
    """The bit came to mean the new constant: what the old code had set changed its value."""
    program = live(stack, runtime, FLAG % storage, flags, "clang")
    assert program.ask("1") == "500"
    try:
        assert program.patch(a_c=("level = 500", "level = 700"))
        assert "-fkeep-persistent-storage-variables" in compiler.flags(["clang"], "c", {"PATH": os.environ["PATH"]})
    except Refused as e:
        assert {r.code for r in e.refusals} <= {"data-type", "variable-folded", "tls-changed"}
    assert program.ask("0") == "500"


def test_clang_and_a_variable_that_is_really_gone(runtime: Path, stack: ExitStack) -> None:
    program = live(stack, runtime, COUNTER, command="clang")
    assert program.ask("7") == "12"
    assert program.patch(a_c=(COUNTER, "int answer(int n) { return n * 2; }\n"))
    assert program.ask("7") == "14"


@pytest.mark.parametrize("linker", ["gold", "bfd", "lld", "mold"])
def test_program_at_fixed_addresses(linker: str, runtime: Path, stack: ExitStack) -> None:
    """gold makes a PLT entry for a weak function that nobody defines if data points to it: the agent called it."""
    if shutil.which({"mold": "mold"}.get(linker, f"ld.{linker}")) is None:
        pytest.skip(f"{linker} is not installed")
    program = live(stack, runtime, COUNTER, ("-O1", "-fno-pie"), link=["-no-pie", f"-fuse-ld={linker}"])
    assert program.ask("7") == "12"
    assert program.patch(a_c=("return total;", "return -total;"))
    assert program.ask("1") == "-13"


LIBRARY = """
int shown = 3;
int (*pointer)(int);
__attribute__((noinline)) int helper(int n) { return n + 1; }
int answer(int n) { pointer = pointer ? pointer : helper; shown += n; return helper(shown) * 10 + (pointer == helper); }
"""


def test_exported_names_of_a_library_are_not_defined_again(runtime: Path, stack: ExitStack) -> None:
    """The payload had a second copy of what the library exports: another variable, another address of the function."""
    program = live(stack, runtime, LIBRARY, ("-O2", "-fPIC"), shared=True)
    assert program.ask("1") == "51"
    assert program.patch(a_c=("return n + 1;", "return n + 2;"))
    assert program.ask("1") == "71"
    assert program.patch(a_c=("* 10 + (", "* 100 + ("))
    assert program.ask("1") == "801"


GROWING = """
int *seen;
int answer(int n)
{
  static long count[4] = {0};
  static long other = 1;
  count[n & 3] += n;
  other++;
  return (int)(count[0] + count[1] + count[2] + count[3] + other);
}
"""


def test_array_that_shrinks_and_grows_with_the_same_initial_values(runtime: Path, stack: ExitStack) -> None:
    """A payload that has nothing to write into an array does not bring its content: the one before tells it."""
    program = live(stack, runtime, GROWING, ("-O0",))
    assert program.ask("3") == "5"
    assert program.patch(a_c=("count[4] = {0}", "count[5] = {0, 0, 0, 0, 50}"))
    assert program.ask("3") == "9"
    assert program.patch(a_c=("count[5] = {0, 0, 0, 0, 50}", "count[4] = {0}"))
    assert program.ask("3") == "13"
    assert program.patch(a_c=("count[4] = {0}", "count[5] = {0, 0, 0, 0, 70}"))
    assert program.patch(a_c=("+ other);", "+ other + count[4]);"))
    assert program.ask("3") == "87"


NUMBERED = """
int first(void) { static int n = 10; return n; }
/* here */
int answer(int n) { return first() * 1000 + n; }
void keep(int *p) { (void)p; }
"""


def test_initial_value_of_a_static_local_that_was_renumbered(runtime: Path, stack: ExitStack) -> None:
    """What a variable held after an earlier patch was looked up by the name it has now."""
    program = live(stack, runtime, NUMBERED, ("-O0",))
    assert program.ask("1") == "10001"
    assert program.patch(a_c=("n = 10;", "n = 20;"))
    assert program.ask("1") == "20001"
    assert not program.patch(a_c=("/* here */", "int second(void) { static int n = 7; return n++; }"))     # nobody calls it
    assert program.patch(a_c=("first() * 1000", "first() * 1000 + second() * 100000"))
    assert program.ask("1") == "720001"
    assert program.patch(a_c=("n = 20;", "n = 30;"))
    assert program.ask("1") == "830001"


def test_array_whose_alignment_grows_with_it(runtime: Path, stack: ExitStack) -> None:
    """GCC aligns arrays of 32 bytes and more to 32: once grown, any edit of its users was refused for the alignment."""
    text = """
        static __attribute__((aligned(64))) int before[16];
        static long v[3] = {1, 2, 3};
        int answer(int n) { v[n % 3] += n; before[n & 15]++; return (int)(v[0] + v[1] + v[2]); }
        """
    program = live(stack, runtime, text, ("-O1",))
    assert program.ask("2") == "8"
    try:
        assert program.patch(a_c=("v[3] = {1, 2, 3};", "v[4] = {1, 2, 3, 4};"))
    except Refused as e:
        assert {r.code for r in e.refusals} == {"data-align", "data-size"} | {r.code for r in e.refusals} & {"data-type"}
        pytest.skip("the linker put it where the larger alignment does not hold")
    assert program.patch(a_c=("+ v[2])", "+ v[2] + 100)"))
    assert program.ask("2") == "110"


CONSTANT = """
static const char words[2][4] = {"one", "two"};
int answer(int n) { return words[n & 1][0] * 1000 + words[n & 1][n & 3]; }
"""


@pytest.mark.parametrize("link, taken", [(["-Wl,--rosegment"], True), ([], False)])
def test_constants_of_a_program_that_gold_links(link: list[str], taken: bool, runtime: Path, stack: ExitStack) -> None:
    """gold puts constants between code, where nothing may be written: refused, with an option that helps."""
    if shutil.which("ld.gold") is None:
        pytest.skip("gold is not installed")
    program = live(stack, runtime, CONSTANT, ("-O1", "-fno-pie"), link=["-no-pie", "-fuse-ld=gold", *link])
    assert program.ask("1") == str(ord("t") * 1000 + ord("w"))
    if taken:
        assert program.patch(a_c=('"two"', '"six"'))
        assert program.ask("1") == str(ord("s") * 1000 + ord("i"))
    else:
        with pytest.raises(Refused, match="--rosegment"):
            program.patch(a_c=('"two"', '"six"'))
        assert program.ask("1") == str(ord("t") * 1000 + ord("w"))
