"""Patches while the interpreter is busy: in the function that changes, deep in the stack; and many in a row."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from luadriver import Lua, start

from livetools import Workspace

CopyOfBuild = Callable[[str], Workspace]
pytestmark = pytest.mark.xdist_group("lua-live")

_ANSWER = r"^((?:ok|error)\t.*)\n"


@contextmanager
def running(work: Workspace) -> Iterator[Lua]:
    lua = start(work)
    with lua.program:
        yield lua


def test_function_in_a_tight_loop(copy_of_build: CopyOfBuild) -> None:
    """The loop calls the function without pause, sees nothing but the old result and then the new, and ends by it."""
    work = copy_of_build("lua")
    with running(work) as lua:
        lua.program.ask("io.write('looping\\n'); local r, seen = '', {}; "
                        "repeat r = saved.upper('abc'); seen[r] = true until r == 'xyz'; "
                        "local n = 0; for _ in next, seen do n = n + 1 end; return n, seen.ABC, seen.xyz", "^looping\n")
        work.edit("src/lstrlib.c", "p[i] = toupper(uchar(s[i]));", 'p[i] = "xyz"[i % 3];')
        work.scons("hotpatch")
        assert lua.program.expect(_ANSWER)[1] == "ok\t2, true, true"
        lua.expect_state()


def test_call_under_way_finishes_in_the_old_code(copy_of_build: CopyOfBuild) -> None:
    """A sort that waits in its comparator while its code changes ends as it began; the next one is new."""
    work = copy_of_build("lua")
    sort = ("local first = ...; local t = {}; for i = 1, 50 do t[i] = i end; "
            "table.sort(t, function() if first then first = nil; io.write('sorting\\n'); io.read() end; "
            "return true end)")
    with running(work) as lua:
        lua.ask(f"sort = load([[{sort}]], '=sort')")
        lua.expect("sort()", "error\tsort:1: invalid order function for sorting")
        lua.program.ask("sort(true)", "^sorting\n")
        change_order_message(work)
        work.scons("hotpatch", "HOTPATCH_WHEN=now")
        assert lua.program.ask("go on", _ANSWER)[1] == "error\tsort:1: invalid order function for sorting"
        lua.expect("sort()", "error\tsort:1: the comparator contradicts itself")
        lua.expect_state()


def change_order_message(work: Workspace) -> None:
    """The text occurs in several places of the file; all of them change."""
    path = work.path / "src/ltablib.c"
    text = path.read_text()
    assert text.count('"invalid order function for sorting"') >= 1
    path.write_text(text.replace('"invalid order function for sorting"', '"the comparator contradicts itself"'))


@pytest.mark.parametrize("ending", ["return", "error"])
def test_deep_stack(copy_of_build: CopyOfBuild, ending: str) -> None:
    """Frames of the old code, 100 deep, are left one by one or by one long jump."""
    work = copy_of_build("lua")
    with running(work) as lua:
        lua.ask("function nest(n) return (string.gsub('x', 'x', function() if n > 0 then return nest(n - 1) end; "
                "io.write('bottom\\n'); return assert(load(io.read()))() end)) end")
        lua.program.ask("return nest(100)", "^bottom\n")
        work.edit("src/lstrlib.c", '"invalid replacement value (a %s)"', '"no replacement: a %s"')
        work.edit("src/ldebug.c", '"attempt to %s a %s value%s", op', '"cannot %s a %s value%s", op')
        work.edit("src/lvm.c", "lua_Integer luaV_idiv (lua_State *L, lua_Integer m, lua_Integer n) {\n",
                  "lua_Integer luaV_idiv (lua_State *L, lua_Integer m, lua_Integer n) {\n  if (m == 77) return 78;\n")
        work.scons("hotpatch", "HOTPATCH_WHEN=now")
        if ending == "return":
            lua.program.send("return 'done'\n")
            assert lua.program.expect(_ANSWER)[1] == "ok\tdone"
        else:
            lua.program.send("local t; return t.x\n")
            assert lua.program.expect(_ANSWER)[1].endswith("cannot index a nil value (local 't')")
        lua.expect("return (string.gsub('x', 'x', function() return {} end))", "error\task:1: no replacement: a table")
        lua.expect("local m = 77; return m // 5", "ok\t78")
        lua.expect_state()


def test_coroutines_that_were_suspended(copy_of_build: CopyOfBuild) -> None:
    """Coroutines suspended in the old code are resumed by the new."""
    work = copy_of_build("lua")
    with running(work) as lua:
        lua.ask("many = {}; for i = 1, 1000 do many[i] = coroutine.wrap(function(n) "
                "while true do n = coroutine.yield(n * i + #saved.upper('abc')) end end); many[i](i) end")
        work.edit("src/lcorolib.c", "static int auxresume (lua_State *L, lua_State *co, int narg) {\n",
                  "static int resumes;\nstatic int auxresume (lua_State *L, lua_State *co, int narg) {\n"
                  "  if (narg == 5) { lua_pushinteger(L, resumes); return 1; }\n  resumes++;\n")
        work.edit("src/ldo.c", "static void resume (lua_State *L, void *ud) {\n",
                  "static int unrolled;\nstatic void resume (lua_State *L, void *ud) {\n  unrolled++;\n")
        work.scons("hotpatch")
        lua.expect("local sum = 0; for i = 1, 1000 do sum = sum + many[i](2) end; return sum", "ok\t1004000")
        lua.expect("return many[1](1, 2, 3, 4, 5)", "ok\t1000")
        lua.expect_state()


@pytest.mark.timeout(1800)     # a hundred builds, when run in full
def test_many_generations(copy_of_build: CopyOfBuild, full_size: bool) -> None:
    """Edit after edit on one process: the newest always shows, and a counter from the first goes on."""
    work = copy_of_build("lua")
    count = 100 if full_size else 12
    with running(work) as lua:
        work.edit("src/lstrlib.c", "static int str_upper (lua_State *L) {\n",
                  "static lua_Integer uppers;\n\nstatic int str_upper (lua_State *L) {\n"
                  '  lua_pushinteger(L, ++uppers);\n  lua_pushliteral(L, "generation 0");\n  if (1) return 2;\n')
        for generation in range(1, count + 1):
            work.edit("src/lstrlib.c", f'"generation {generation - 1}"', f'"generation {generation}"')
            work.scons("hotpatch")
            lua.expect("return saved.upper('x')", f"ok\t{generation}, generation {generation}")
        (image,) = work.status(lua.program)["images"]
        assert image["generation"] == count
        lua.expect_state()
