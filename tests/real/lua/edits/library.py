"""Edits to the standard library and the interpreter program."""
from __future__ import annotations

from .model import Check, Edit, Replacement

LIBRARY = [
    Edit("upper", "changed body of a function that Lua's tables hold",
         (Replacement("lstrlib.c", "p[i] = toupper(uchar(s[i]));",
                      "p[i] = (i % 2) ? s[i] : toupper(uchar(s[i]));"),),
         (Check('return saved.upper("abcdef"), ("xyz"):upper()', "ok\tABCDEF, XYZ", "ok\tAbCdEf, XyZ"),),
         ("str_upper",)),
    Edit("tostring-counts", "new static variable",
         (Replacement("lbaselib.c", "static int luaB_tostring (lua_State *L) {\n"
                                    "  luaL_checkany(L, 1);\n  luaL_tolstring(L, 1, NULL);\n  return 1;\n",
                      "static lua_Integer tostring_calls;\n\n\nstatic int luaB_tostring (lua_State *L) {\n"
                      "  luaL_checkany(L, 1);\n  luaL_tolstring(L, 1, NULL);\n"
                      "  lua_pushinteger(L, ++tostring_calls);\n  return 2;\n"),),
         (Check("return select('#', saved.tostring(1))", "ok\t1", "ok\t2"),),
         ("luaB_tostring",), counter="return (select(2, saved.tostring(true)))", counted="saved.tostring("),
    Edit("cube", "new function, whose address goes into the Lua state",
         (Replacement("lmathlib.c", "static int math_sqrt (lua_State *L) {\n",
                      "static int math_cube (lua_State *L) {\n"
                      "  lua_Number x = luaL_checknumber(L, 1);\n"
                      "  lua_pushnumber(L, x * x * x);\n  return 1;\n}\n\n"
                      "static int math_sqrt (lua_State *L) {\n"
                      "  if (lua_isnone(L, 1)) {\n    lua_pushcfunction(L, math_cube);\n    return 1;\n  }\n"),),
         (Check("saved.cube = saved.sqrt(); return saved.tointeger(saved.cube(27))",
                "error\task:1: bad argument #1 to 'sqrt' (number expected, got no value)", "ok\t19683"),),
         ("math_sqrt",)),
    Edit("concat", "changed string literal",
         (Replacement("ltablib.c", 'luaL_optlstring(L, 2, "", &lsep)', 'luaL_optlstring(L, 2, " and ", &lsep)'),),
         (Check("return saved.concat({1, 2, 3})", "ok\t123", "ok\t1 and 2 and 3"),
          Check("return saved.concat({1, 2, 3}, '-')", "ok\t1-2-3", "ok\t1-2-3")),
         ("tconcat",)),
    Edit("status", "changed element of a constant table of strings",
         (Replacement("lcorolib.c", '{"running", "dead", "suspended", "normal"}',
                      '{"running", "dead", "paused", "normal"}'),),
         (Check("return saved.status(saved.waiting)", "ok\tsuspended", "ok\tpaused"),
          Check("return saved.status(saved.failed)", "ok\tdead", "ok\tdead"))),
    Edit("getenv", "call of a library function that the program did not call before",
         (Replacement("loslib.c",
                      "  lua_pushstring(L, getenv(luaL_checkstring(L, 1)));  /* if NULL push nil */\n  return 1;",
                      "  lua_pushstring(L, getenv(luaL_checkstring(L, 1)));  /* if NULL push nil */\n"
                      "  lua_pushinteger(L, getpid());\n  return 2;"),),
         (Check("return select('#', saved.getenv('X')), (select(2, saved.getenv('X')))", "ok\t1, nil",
                "ok\t2, {pid}"),),
         ("os_getenv",)),
    Edit("utf8len-counts", "new static local variable",
         (Replacement("lutf8lib.c", "  lua_Integer n = 0;  /* counter for the number of characters */\n",
                      "  static lua_Integer calls;\n"
                      "  lua_Integer n = 0;  /* counter for the number of characters */\n"),
          Replacement("lutf8lib.c", "  lua_pushinteger(L, n);\n  return 1;\n}\n\n\n/*\n** codepoint",
                      "  lua_pushinteger(L, n);\n  lua_pushinteger(L, ++calls);\n  return 2;\n}\n\n\n"
                      "/*\n** codepoint")),
         (Check("return (saved.utf8len('äöü')), select('#', saved.utf8len(''))", "ok\t3, 1", "ok\t3, 2"),),
         ("utflen",), counter="return (select(2, saved.utf8len('')))", counted="saved.utf8len("),
    Edit("closed-file", "function held by the metatable of a live userdata",
         (Replacement("liolib.c", '"file (closed)"', '"file (no longer open)"'),),
         (Check("return saved.closed", "ok\tfile (closed)", "ok\tfile (no longer open)"),),
         ("f_tostring",)),
    Edit("traceback", "changed literal of a function in the middle of the call graph",
         (Replacement("lauxlib.c", '"stack traceback:"', '"calls, innermost first:"'),),
         (Check("return saved.traceback('m'):match('m\\n([^\\n]*)')", "ok\tstack traceback:",
                "ok\tcalls, innermost first:"),),
         ("luaL_traceback",)),
    Edit("interrupted", "function registered with the kernel (a signal handler's hook) before the patch",
         (Replacement("lua.c", '"interrupted!"', '"stopped by the user"'),
          Replacement("lua.c", '"(error object is a %s value)"', '"(the error was a %s)"')),
         (Check("local _, m = pcall(function() io.write('spinning\\n'); while true do end end); "
                "return (m:gsub('^ask:1: ', ''))",
                "ok\tinterrupted!", "ok\tstopped by the user", interrupt=True),),
         ("lstop", "msghandler")),
]
