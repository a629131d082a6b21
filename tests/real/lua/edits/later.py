"""Edits to what earlier edits already changed, made or left."""
from __future__ import annotations

from .model import Check, Edit, Replacement

_COUNTED = ("static lua_Integer tostring_calls;\n\n\nstatic int luaB_tostring (lua_State *L) {\n"
            "  luaL_checkany(L, 1);\n  luaL_tolstring(L, 1, NULL);\n"
            "  lua_pushinteger(L, ++tostring_calls);\n  return 2;\n")

LATER = [
    Edit("upper-again", "second change of one function",
         (Replacement("lstrlib.c", "p[i] = (i % 2) ? s[i] : toupper(uchar(s[i]));", "p[l - 1 - i] = toupper(uchar(s[i]));"),),
         (Check('return saved.upper("abcdef")', "ok\tAbCdEf", "ok\tFEDCBA"),),
         ("str_upper",)),
    Edit("cube-hypot", "changed function that an earlier generation brought, reached through an address taken then",
         (Replacement("lmathlib.c", "  lua_pushnumber(L, x * x * x);", "  lua_pushnumber(L, l_mathop(hypot)(x, 36));"),),
         (Check("return saved.tointeger(saved.cube(27))", "ok\t19683", "ok\t45"),),
         ("math_cube",)),
    Edit("assert", "changed function beside a variable that an earlier generation brought",
         (Replacement("lbaselib.c", '"assertion failed!"', '"that does not hold"'),),
         (Check("assert(false)", "error\task:1: assertion failed!", "error\task:1: that does not hold"),),
         ("luaB_assert",)),
    Edit("tostring-lengths", "new static variable before one of the same type that an earlier generation brought",
         (Replacement("lbaselib.c", _COUNTED,
                      "static lua_Integer tostring_bytes = 1000;\n" + _COUNTED.replace(
                          "  luaL_tolstring(L, 1, NULL);\n  lua_pushinteger(L, ++tostring_calls);\n  return 2;\n",
                          "  size_t length;\n  luaL_tolstring(L, 1, &length);\n  tostring_bytes += length;\n"
                          "  lua_pushinteger(L, ++tostring_calls);\n  lua_pushinteger(L, tostring_bytes);\n  return 3;\n")),),
         (Check("return select('#', saved.tostring('')), (select(3, saved.tostring('')))", "ok\t2, nil", "ok\t3, 1000"),),
         ("luaB_tostring",)),
    Edit("codepoint-counts", "new static local of the same name as one that an earlier generation brought",
         (Replacement("lutf8lib.c", "static int codepoint (lua_State *L) {\n  size_t len;\n",
                      "static int codepoint (lua_State *L) {\n  static lua_Integer calls;\n  size_t len;\n"),
          Replacement("lutf8lib.c", "  if (posi > pose) return 0;  /* empty interval; return no values */",
                      "  if (posi > pose) { lua_pushinteger(L, ++calls); return 1; }")),
         (Check("return select('#', utf8.codepoint('abc', 2, 1)), utf8.codepoint('abc', 2)", "ok\t0, 98", "ok\t1, 98"),),
         ("codepoint",), counter="return utf8.codepoint('abc', 2, 1)"),
    Edit("digits", "removed function",
         (Replacement("lstrlib.c", "static const char *get2digits (const char *s) {\n  if (isdigit(uchar(*s))) {\n    s++;\n"
                      "    if (isdigit(uchar(*s))) s++;  /* (2 digits at most) */\n  }\n  return s;\n}\n", ""),
          Replacement("lstrlib.c", "spec = get2digits(spec);  /* skip width */", 'spec += strspn(spec, "0123456789");'),
          Replacement("lstrlib.c", "spec = get2digits(spec);  /* skip precision */", 'spec += strspn(spec, "0123456789");')),
         (Check("return #saved.format('%100d', 1)",
                "error\task:1: invalid conversion specification: '%100d'", "ok\t100"),),
         ("checkformat",)),
    Edit("number-format", "changed macro in a header that every source includes",
         (Replacement("luaconf.h", '#define LUA_NUMBER_FMT\t\t"%.14g"', '#define LUA_NUMBER_FMT\t\t"%.6g"'),),
         (Check("return 1 / 3, 2 ^ 0.5", "ok\t0.33333333333333, 1.4142135623731", "ok\t0.333333, 1.41421"),)),
    Edit("two-files", "changes of two files at once that belong together",
         (Replacement("lmathlib.c", "default: return luaL_error(L, \"wrong number of arguments\");",
                      "default: return luaL_argerror(L, 3, \"one too many\");"),
          Replacement("lauxlib.c", '"bad argument #%d to \'%s\' (%s)"', '"argument %d of \'%s\' is wrong: %s"')),
         (Check("math.random(1, 2, 3)", "error\task:1: wrong number of arguments",
                "error\task:1: argument 3 of 'random' is wrong: one too many"),),
         ("math_random", "luaL_argerror")),
    Edit("pause-back", "changed back to what the program was built from",
         (Replacement("lgc.c", "int pause = getgcparam(g->gcpause) * 1000;", "int pause = getgcparam(g->gcpause);"),),
         (Check("return collects_by_itself()", "ok\tfalse", "ok\ttrue"),)),
    Edit("type-name-back", "constant changed back to what the program was built from",
         (Replacement("ltm.c", 'udatatypename, "coroutine",', 'udatatypename, "thread",'),),
         (Check("return saved.type(saved.waiting)", "ok\tcoroutine", "ok\tthread"),)),
    Edit("cube-gone", "removed function that the Lua state still holds: who holds it keeps the code it had",
         (Replacement("lmathlib.c", "static int math_cube (lua_State *L) {\n  lua_Number x = luaL_checknumber(L, 1);\n"
                      "  lua_pushnumber(L, l_mathop(hypot)(x, 36));\n  return 1;\n}\n\n", ""),
          Replacement("lmathlib.c", "  if (lua_isnone(L, 1)) {\n    lua_pushcfunction(L, math_cube);\n    return 1;\n  }\n", "")),
         (Check("return saved.type(saved.sqrt())", "ok\tfunction",
                "error\task:1: argument 1 of 'sqrt' is wrong: number expected, got no value"),
          Check("return saved.tointeger(saved.cube(15))", "ok\t39", "ok\t39")),
         ("math_sqrt",)),
    Edit("utf8len-plain", "removed static local",
         (Replacement("lutf8lib.c", "  static lua_Integer calls;\n  lua_Integer n = 0;", "  lua_Integer n = 0;"),
          Replacement("lutf8lib.c", "  lua_pushinteger(L, ++calls);\n  return 2;\n}\n\n\n/*\n** codepoint",
                      "  return 1;\n}\n\n\n/*\n** codepoint")),
         (Check("return select('#', saved.utf8len(''))", "ok\t2", "ok\t1"),),
         ("utflen",), retires="utf8len-counts"),
]
