"""HOTRELOAD_STUBS=entry: calls go through nothing until a patch, and a patch maps a copy over the pages of what it changes."""
from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotreload_tool.payload import NEW_SUFFIX
from hotreload_tool.verify import container, redirects
from hotreload_tool.verify.linked import Linked
from hotreload_tool.verify.space import Space, stub_slot
from hotreload_tool.verify.tables import Payload
from hotreload_tool.verify.verdict import Verdict
from livetools import DONE, REFUSED, Completed, Program, Workspace, workspace

IDLE = bytes.fromhex("6690")
SOURCES = {
    "SConstruct": """
env = Environment(tools=['default', 'hotreload'], HOTRELOAD_STUBS='entry', HOTRELOAD_ARENA='1M')
env.Program('prog', Glob('*.c'), CCFLAGS=['-O2'], LIBS=['pthread'])
""",
    "main.c": """
#include <pthread.h>
#include <stdio.h>
#include <string.h>
int calc(int), twice(int), hot(int), outer(int);
static volatile int stop;
static volatile unsigned long calls;
__attribute__((noipa)) static int local(int x) { return x + 3; }
int (*volatile pointer)(int) = calc;
static void *spin(void *unused) {
  (void)unused;
  while (!stop) {
    int got = hot(7);
    if (got % 10 != 7) { printf("wrong %d\\n", got); break; }
    calls++;
  }
  return NULL;
}
int main(void) {
  char line[16];
  pthread_t thread[2];
  setbuf(stdout, NULL);
  while (fgets(line, sizeof line, stdin)) {
    if (!strcmp(line, "say\\n")) printf("said %d %d %d %d\\n", calc(7), pointer(7), twice(7), local(7));
    if (!strcmp(line, "spin\\n")) {
      for (int i = 0; i < 2; i++) pthread_create(thread + i, NULL, spin, NULL);
      printf("spins\\n");
    }
    if (!strcmp(line, "hot\\n")) printf("hot %d\\n", hot(7));
    if (!strcmp(line, "outer\\n")) printf("outer %d\\n", outer(7));
    if (!strcmp(line, "end\\n")) {
      stop = 1;
      for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
      printf("ended %d\\n", calls > 0);
    }
  }
  return 0;
}
""",
    "calc.c": """
int calc(int x) { return x * 10; }
int twice(int x) __attribute__((alias("calc")));
""",
    "hot.c": "int hot(int x) { return x + 10; }\n",
    "outer.c": """
__attribute__((noipa)) static int inner(int x) { return x + 1; }
int outer(int x) { return inner(x) + 10; }
""",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    source = tmp_path_factory.mktemp("source")
    for name, text in SOURCES.items():
        (source / name).write_text(text)
    with workspace(source, tmp_path_factory.mktemp("entry") / "project") as work:
        work.scons("-s")
        yield work


@pytest.fixture
def work(built: Workspace) -> Iterator[Workspace]:
    """As it was built; what a test patched is gone with its program."""
    yield built
    shutil.rmtree(built.path / ".hotreload" / "chains", ignore_errors=True)
    for name, text in SOURCES.items():
        (built.path / name).write_text(text)
    built.scons("-s")


@pytest.fixture
def program(work: Workspace) -> Iterator[Program]:
    with work.start(["prog"]) as running:
        running.ask("say", r"^said 70 70 70 10\n")
        yield running


def patch(work: Workspace, name: str, old: str, new: str) -> None:
    work.edit(name, old, new)
    work.scons("-s", "hotpatch")


def maps(program: Program) -> str:
    return Path(f"/proc/{program.pid}/maps").read_text()


def place(work: Workspace, program: Program, symbol: str) -> int:
    """Where a symbol of the program lies in the process."""
    image = Linked((work.path / "prog").read_bytes(), "prog")
    first = min(int(line.partition("-")[0], 16) for line in maps(program).splitlines() if line.endswith("/prog"))
    return first + next(s.value for s in image.symbols if s.name == symbol)


def poke(program: Program, at: int, data: bytes) -> bytes:
    """Write into the process as a debugger does; what was there."""
    handle = os.open(f"/proc/{program.pid}/mem", os.O_RDWR)
    try:
        before = os.pread(handle, len(data), at)
        assert os.pwrite(handle, data, at) == len(data)
    finally:
        os.close(handle)
    return before


def bundles(work: Workspace) -> list[Path]:
    return sorted(work.path.glob(".hotreload/chains/*/*.hotpatch"))


def attest(work: Workspace, program: Program, code: int = DONE) -> Completed:
    return work.hotpatch("attest", str(program.pid), *(w for b in bundles(work) for w in ("--bundle", b)), code=code)


def test_functions_are_reached_at_their_own_entries(work: Workspace, program: Program) -> None:
    image = Linked((work.path / "prog").read_bytes(), "prog")
    space = Space(image)
    entries = {name: space.head_of(slot) for slot, name in space.slots.items()}
    assert entries["twice"] == 0, "another name of the same code has a stub of its own"
    for name in ("calc", "hot", "main", "local~main.o"):
        at, = {s.value for s in image.by_name[name]}
        assert entries[name] == at and image.read(at, 2) == IDLE
    assert "hotreload-heads" not in maps(program)
    assert program.finish() == 0


def test_generations_of_a_function_and_back(work: Workspace, program: Program) -> None:
    patch(work, "calc.c", "x * 10", "x * 100")
    program.ask("say", r"^said 700 700 700 10\n", reject=" 70 ")
    copied = [line for line in maps(program).splitlines() if "hotreload-heads" in line]
    assert [line.split()[1] for line in copied] == ["r-xp"]
    assert not re.search(r" [r-]wx", maps(program))
    work.edit("main.c", "return x + 3", "return x + twice(1)")
    patch(work, "calc.c", "x * 100", "x * 1000")
    program.ask("say", r"^said 7000 7000 7000 1007\n", reject="700 ")
    attest(work, program)
    work.hotpatch("verify", bundles(work)[0], "--image", work.path / "prog")
    for generation, said in ((1, "700 700 700 10"), (0, "70 70 70 10")):
        work.hotpatch("revert", "--pid", str(program.pid), "--to", str(generation))
        program.ask("say", rf"^said {said}\n")
        attest(work, program)
    assert program.finish() == 0


def called(payload: Linked, name: str) -> list[int]:
    """Where calls and jumps in a function of a payload lead that leave it."""
    code = next(s for s in payload.symbols if s.name == name + NEW_SUFFIX)
    found = [t for _, _, t, branch in redirects._targets(payload.read(code.value, code.size), code.value) if branch]
    return [t for t in found if not code.value <= t < code.value + code.size]


def test_patched_functions_call_each_other_past_the_heads(work: Workspace, program: Program) -> None:
    """The stub beside the payload's own code, or that in the image: both jump through the slot, and the next patch is met."""
    work.edit("outer.c", "x + 1;", "x + 2;")
    patch(work, "outer.c", "inner(x) + 10", "inner(x) + 20")
    program.ask("outer", r"^outer 29\n", reject="outer 18")
    patch(work, "outer.c", "inner(x) + 20", "inner(x) + 30")
    program.ask("outer", r"^outer 39\n", reject="outer 29")
    image = Linked((work.path / "prog").read_bytes(), "prog")
    slot, = (at for at, name in Space(image).slots.items() if name == "inner~outer.o")
    for number, made in enumerate(bundles(work)):
        contents = container.check(made.read_bytes(), Verdict("made"))
        assert contents is not None
        payload = Linked(contents.payload(0), "payload")
        stub, = called(payload, "outer")
        assert stub_slot(image if number else payload, stub) == slot
        assert image.read(stub, 3) == b"\x3e\xff\x25" if number else payload.executable(stub)
    patch(work, "outer.c", "x + 2;", "x + 3;")
    program.ask("outer", r"^outer 40\n", reject="outer 39")
    attest(work, program)
    for made in bundles(work):
        work.hotpatch("verify", made, "--image", work.path / "prog")
    assert program.finish() == 0


def test_threads_run_while_heads_become_jumps(work: Workspace, program: Program) -> None:
    program.ask("spin", "^spins\n")
    for n in range(1, 4):
        work.edit("hot.c", f"x + {10 * n}", f"x + {10 * n + 10}")
        work.scons("-s", "hotpatch", f"HOTPATCH_WHEN={'now' if n % 2 else 'quiescent'}")
        program.ask("hot", rf"^hot {10 * n + 17}\n", reject="wrong")
    program.ask("end", "^ended 1\n", reject="wrong")
    assert program.finish() == 0


def test_a_breakpoint_in_the_page_is_in_the_way(work: Workspace, program: Program) -> None:
    """In the copy nobody would know it for one, and whoever meets it would die."""
    at = place(work, program, "hot") + 3
    before = poke(program, at, b"\xcc")
    work.edit("calc.c", "x * 10", "x * 100")
    refused = work.scons("-s", "hotpatch", code=None)
    assert refused.code and "breakpoints" in refused.text
    program.ask("say", r"^said 70 70 70 10\n")
    assert "hotreload-heads" not in maps(program)
    poke(program, at, before)
    work.scons("-s", "hotpatch")
    program.ask("say", r"^said 700 700 700 10\n")
    assert program.finish() == 0


def test_a_breakpoint_on_the_head_is_in_the_way(work: Workspace, program: Program) -> None:
    poke(program, place(work, program, "calc"), b"\xcc")
    work.edit("calc.c", "x * 10", "x * 100")
    refused = work.scons("-s", "hotpatch", code=None)
    assert refused.code and "breakpoint" in refused.text
    poke(program, place(work, program, "calc"), IDLE[:1])
    program.ask("say", r"^said 70 70 70 10\n")
    program.kill()


def test_a_head_that_is_idle_again_is_found(work: Workspace, program: Program) -> None:
    patch(work, "calc.c", "x * 10", "x * 100")
    poke(program, place(work, program, "calc"), IDLE)
    program.ask("say", r"^said 70 70 700 10\n")
    found = attest(work, program, REFUSED)
    assert "calc" in found.text and "NOT" in found.text
    made, = bundles(work)
    again = work.hotpatch("apply", made, "--pid", str(program.pid), "--json", code=None).json()
    assert again["functions_live"] < again["functions_changed"]
    program.kill()


def test_a_bundle_that_leaves_a_head_idle_is_not_sound(work: Workspace, program: Program) -> None:
    patch(work, "calc.c", "x * 10", "x * 100")
    made, = bundles(work)
    contents = container.check(made.read_bytes(), Verdict("made"))
    assert contents is not None
    space = Space(Linked((work.path / "prog").read_bytes(), "prog"))
    payload = Payload(Linked(contents.payload(0), "payload"))
    assert len(payload.heads) == 1 and not list(redirects.slot_problems(payload, space))
    payload.__dict__["heads"] = []
    assert "is not listed" in "".join(redirects.slot_problems(payload, space))
    payload.__dict__["heads"] = [*Payload(payload.file).heads, payload_head(payload, 8)]
    assert "is not that of" in "".join(redirects.slot_problems(payload, space))
    assert program.finish() == 0


def payload_head(payload: Payload, distance: int) -> object:
    head = Payload(payload.file).heads[0]
    return head._replace(at=head.at + distance)


# ---- both kinds in one image -------------------------------------------------------------------------------------

MIXED = {
    "SConstruct": """
env = Environment(tools=['default', 'hotreload'], HOTRELOAD_STUBS='entry', HOTRELOAD_ARENA='1M', CCFLAGS=['-O2'])
entry, plt = env.Object('entry.cc'), env.Clone(HOTRELOAD_STUBS='plt').Object('plt.cc')
env.Program('entry-first', [entry, plt])
env.Program('plt-first', [plt, entry])
""",
    "both.h": """
__attribute__((noinline)) inline int shared(int x) { static int calls; return x + 1 + 0 * ++calls; }
int of_entry(int), of_plt(int);
""",
    "entry.cc": """
#include <cstdio>
#include "both.h"
__attribute__((noipa)) int of_entry(int x) { return shared(x) + 10; }
int main() {
  char line[16];
  setbuf(stdout, nullptr);
  while (fgets(line, sizeof line, stdin)) printf("said %d %d\\n", of_entry(of_plt(0)), of_plt(of_entry(0)));
}
""",
    "plt.cc": """
#include "both.h"
__attribute__((noipa)) int of_plt(int x) { return shared(x) + (x < 500 ? of_entry(x) - of_entry(x) : 0) + 100; }
""",
}


@pytest.mark.parametrize("name", ["entry-first", "plt-first"])
def test_both_kinds_in_one_image(tmp_path: Path, name: str) -> None:
    """Which unit's copy of the inline function the image has depends on their order; it may have either kind."""
    source = tmp_path / "source"
    source.mkdir()
    for file, text in MIXED.items():
        (source / file).write_text(text)
    with workspace(source, tmp_path / "project") as work:
        work.scons("-s", name)
        space = Space(Linked((work.path / name).read_bytes(), name))
        heads = {function for slot, function in space.slots.items() if space.head_of(slot)}
        assert ("_Z8of_entryi" in heads, "_Z6of_plti" in heads, "_Z6sharedi" in heads) == (True, False, name == "entry-first")
        with work.start([name]) as program:
            program.ask("say", "^said 112 112\n")
            work.edit("both.h", "x + 1", "x + 2")
            work.scons("-s", name, "hotpatch")
            program.ask("say", "^said 114 114\n", reject="112")
            work.edit("plt.cc", "+ 100", "+ 200")
            work.edit("entry.cc", "+ 10;", "+ 20;")
            work.scons("-s", name, "hotpatch")
            program.ask("say", "^said 224 224\n", reject="114")
            work.edit("SConstruct", "Clone(HOTRELOAD_STUBS='plt')", "Clone()")       # the process keeps its kind
            work.edit("plt.cc", "+ 200", "+ 300")
            refused = work.scons("-s", name, "hotpatch", code=None)
            assert refused.code and "plt.o: has entry stubs" in refused.text
            work.edit("plt.cc", "+ 300", "+ 200")
            attest(work, program)
            work.hotpatch("revert", "--pid", str(program.pid), "--to", "0")
            program.ask("say", "^said 112 112\n")
            assert program.finish() == 0
        work.scons("-s", name)
        space = Space(Linked((work.path / name).read_bytes(), name))
        assert all(space.head_of(slot) for slot, function in space.slots.items() if function.startswith("_Z"))
