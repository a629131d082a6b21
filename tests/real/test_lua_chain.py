"""One process takes every edit, one after another, and keeps all it had.

The tests share one running interpreter. Each asks for the edits before its own, so that any of them can be run alone;
an edit that fails is taken back, so that it fails one test and not all that follow.
"""
from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lua.edits import CHAIN, CORE, LIBRARY, Edit
from luadriver import Lua, make_edit, restore, start

from livetools import Completed, LiveError, Workspace, clean_environment, edit, runtime_directory

pytestmark = pytest.mark.xdist_group("lua-chain")

_MIDDLE = len(CHAIN) // 2
NOW = "HOTPATCH_WHEN=now"      # for functions that a process is always in; else a patch waits until it has left them
FIRST, SECOND = CHAIN[:_MIDDLE], CHAIN[_MIDDLE:]


class Chain:
    """A project, its running interpreter, and the edits that have been tried on it."""

    def __init__(self, work: Workspace) -> None:
        self.work = work
        self.source = work.path / "src"
        self.pristine = {path: path.read_bytes() for path in self.source.iterdir()}
        self.image = (work.path / "build/lua").read_bytes()
        self.lua = start(work)
        self.second = start(work)      # takes every patch as well, and is asked for one thing at its end
        self.objects: dict[str, list[tuple[Path, Path]]] = {}    # of each edit that is live: (old, new)
        self.tried: set[str] = set()
        self.live: list[Edit] = []

    def reach(self, count: int) -> None:
        """Try the first `count` edits that were not tried yet; one that fails is its own test's business."""
        for change in CHAIN[:count]:
            if change.name not in self.tried:
                try:
                    self.apply(change)
                except LiveError:
                    continue

    def apply(self, change: Edit) -> None:
        """Edit, `scons hotpatch`, and see the new behaviour with the old state. Taken back where that fails."""
        self.tried.add(change.name)
        self.lua.expect_before(change)
        before = make_edit(self.source, change)
        generation = self.generation()
        objects = {path: path.read_bytes() for path in (self.work.path / "build").glob("*.o")}
        try:
            done = self.hotpatch(*([NOW] if change.on_stack else []))
            expect_named(done, change)
            self.lua.expect_after(change)
            self.lua.expect_state()
            for lua in (self.lua, self.second):
                expect_generation(self.generation(lua), generation + 1)
        except LiveError:
            restore(before)
            raise
        self.live.append(change)
        self.objects[change.name] = [self._keep(path, content, change.name) for path, content in objects.items()
                                     if path.read_bytes() != content]

    def _keep(self, path: Path, old: bytes, name: str) -> tuple[Path, Path]:
        """Copies of an object before and after an edit."""
        before, after = (self.work.path / "kept" / name / when / path.name for when in ("before", "after"))
        for copy, content in ((before, old), (after, path.read_bytes())):
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        return before, after

    def hotpatch(self, *arguments: str, code: int = 0) -> Completed:
        """`scons hotpatch`, which never links the program again."""
        done = self.work.scons("hotpatch", *arguments, code=code)
        if (self.work.path / "build/lua").read_bytes() != self.image:
            raise LiveError(f"the program was linked again: {done}")
        return done

    def generation(self, lua: Lua | None = None) -> int:
        (image,) = self.work.status((lua or self.lua).program)["images"]
        return int(image["generation"])

    def expect_untouched(self, action: Callable[[], Completed]) -> Completed:
        """Run something that must not change the process."""
        before = self.work.status(self.lua.program)
        done = action()
        if self.work.status(self.lua.program) != before:
            raise LiveError(f"the process is no longer as it was: {done}")
        self.lua.expect_state()
        return done


def expect_named(done: Completed, change: Edit) -> None:
    missing = [name for name in change.functions if name not in done.text]
    if missing:
        raise LiveError(f"the report does not name {', '.join(missing)}: {done}")


def expect_generation(got: int, wanted: int) -> None:
    if got != wanted:
        raise LiveError(f"the process is at generation {got}, not {wanted}")


@pytest.fixture(scope="module")
def chain(built: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with runtime_directory() as sockets:
        path = tmp_path_factory.mktemp("chain") / "lua"
        shutil.copytree(built.path, path, symlinks=True)
        chain = Chain(Workspace(path, clean_environment(HOTRELOAD_RUNTIME_DIR=str(sockets))))
        with chain.lua.program, chain.second.program:
            yield chain


@pytest.mark.parametrize("change", FIRST, ids=lambda change: change.name)
def test_edit(chain: Chain, change: Edit) -> None:
    run_edit(chain, change)


def test_comment_only(chain: Chain) -> None:
    """Lines move, in a source and in a header that all include, and nothing has changed."""
    chain.reach(_MIDDLE)
    edit(chain.source / "lvm.c", "lua_Integer luaV_idiv (lua_State *L,", "/* a comment,\n** of two lines */\n"
         "lua_Integer luaV_idiv (lua_State *L,")
    edit(chain.source / "lobject.h", "typedef struct TString {", "/* a comment */\n\ntypedef struct TString {")
    done = chain.expect_untouched(chain.hotpatch)
    assert "nothing changed" in done.text


def test_compile_error(chain: Chain) -> None:
    """The compiler's own message, a failed build, and a process that goes on; the next edit works."""
    chain.reach(_MIDDLE)
    before = (chain.source / "lstrlib.c").read_bytes()
    edit(chain.source / "lstrlib.c", "static int str_upper (lua_State *L) {",
         "static int str_upper (lua_State *L) { oops")
    failed = chain.expect_untouched(lambda: chain.hotpatch(code=2))
    (chain.source / "lstrlib.c").write_bytes(before)
    assert "lstrlib.c" in failed.err and "error:" in failed.err and "oops" in failed.err
    done = chain.expect_untouched(chain.hotpatch)
    assert "nothing changed" in done.text


def test_relink_between(chain: Chain) -> None:
    """A plain `scons` links a new program; the process that runs the old one is patched from its own baseline."""
    chain.reach(_MIDDLE)
    chain.expect_untouched(chain.work.scons)
    relinked = (chain.work.path / "build/lua").read_bytes()
    assert relinked != chain.image
    chain.image = relinked
    done = chain.expect_untouched(chain.hotpatch)
    assert "nothing changed" in done.text


@pytest.mark.parametrize("change", SECOND, ids=lambda change: change.name)
def test_edit_after(chain: Chain, change: Edit) -> None:
    run_edit(chain, change)


@pytest.mark.parametrize("change", CHAIN, ids=lambda change: change.name)
def test_difference_of_objects(chain: Chain, change: Edit) -> None:
    """`hotpatch diff` names an edit's own functions, and few others."""
    chain.reach(CHAIN.index(change) + 1)
    functions: set[str] = set()
    data: set[str] = set()
    for old, new in chain.objects[change.name]:
        found = chain.work.hotpatch("diff", "--json", old, new).json()
        functions |= {c_name(name) for kind in ("changed", "added", "removed") for name in found[kind]}
        data |= {c_name(name) for name in found["data"]}
    assert functions | data
    assert set(change.functions) <= functions
    assert len(functions) <= 8 and len(data) <= 4, f"too much: {sorted(functions)} {sorted(data)}"


def c_name(unique: str) -> str:
    """The C name of a unique name: NAME~OBJECT and NAME#2~OBJECT for file-local ones."""
    return unique.split("~")[0].split("#")[0]


def test_all_edits_went_live(chain: Chain) -> None:
    chain.reach(len(CHAIN))
    assert [change.name for change in chain.live] == [change.name for change in CHAIN]


def test_process_of_a_newer_build(chain: Chain) -> None:
    """A process started late, from another build of the program, is brought up to date beside the old one."""
    chain.reach(len(CHAIN))
    late = start(chain.work, live=False)
    with late.program:
        edit(chain.source / "lstrlib.c", "p[l - 1 - i] = toupper(uchar(s[i]));", "p[i] = '*';")
        chain.hotpatch(NOW)
        for lua in (chain.lua, late):
            lua.expect("return saved.upper('abc')", "ok\t***")
            lua.expect_state()
        late.expect_after(next(change for change in CHAIN if change.name == "digits"))
        late.end()


def test_error_handler_stored_before(chain: Chain) -> None:
    """The interpreter's error handler lies on the Lua stack since the program began; an error ends it there."""
    chain.reach(len(CHAIN))
    second = chain.second.program
    second.send("end by an error\n")
    assert second.wait() == 1
    assert "(the error was a table)" in second.transcript
    assert "(error object is a table value)" not in second.transcript
    assert second.transcript.split("ready\n")[1].startswith(f"{second.argv[0]}: "), "progname, set when it began"


def test_back_to_the_beginning(chain: Chain) -> None:
    """All edits are taken back at once: the process behaves as when it was started, and still has its state."""
    chain.reach(len(CHAIN))
    for path, content in chain.pristine.items():
        path.write_bytes(content)
    chain.hotpatch(NOW)
    chain.lua.counters.clear()
    for change in [*LIBRARY, *CORE]:
        chain.lua.expect_before(change)
    chain.lua.expect_state()
    chain.lua.end()


def run_edit(chain: Chain, change: Edit) -> None:
    chain.reach(CHAIN.index(change))
    assert change.name not in chain.tried, "an earlier test has already tried it"
    chain.apply(change)


def test_nothing_is_left(chain: Chain) -> None:
    """Of an ended process, nothing stays in the runtime directory."""
    left = [path.name for path in Path(chain.work.env["HOTRELOAD_RUNTIME_DIR"]).iterdir()]
    assert [name for name in left if name.startswith(str(chain.lua.pid))] == []
