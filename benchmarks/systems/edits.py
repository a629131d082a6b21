"""The edits that every system is given, on Lua 5.4's sources and the program around it."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from livetools import LiveError

SET_UP = "n = 5; f = math.abs; return math.abs(-3)"     # state to keep, and a pointer to a C function in the heap
STATE, STATE_KEPT = "return n", "5"


@dataclass(frozen=True)
class Edit:
    """Texts to replace, each found once, and what the program answers before and after."""
    what: str
    changes: tuple[tuple[str, str, str], ...]       # file, old text, new text
    asks: tuple[tuple[str, str, str], ...] = ()     # chunk of Lua, answer before, answer after

    @property
    def files(self) -> list[str]:
        return [file for file, _, _ in self.changes]


_ABS = "if (n < 0) n = (lua_Integer)(0u - (lua_Unsigned)n);"
_SHIFT = "else return intop(<<, x, y);"
_ULT = "lua_pushboolean(L, (lua_Unsigned)a < (lua_Unsigned)b);"
# Another helper has the same line; what follows tells them apart.
_POSITION = "  else return len + (size_t)pos + 1;\n}\n\n\n/*\n** Gets an optional ending"
_LARGE = "local a, b = 1, 4 return a << b"


def small(by: int) -> Edit:
    """Of a unit that compiles quickly."""
    return Edit("a function's body", (("src/lmathlib.c", _ABS, _ABS[:-1] + f" + {by};"),),
                (("return math.abs(-3)", "3", str(3 + by)),))


def large(by: int) -> Edit:
    """Of a unit that takes long."""
    return Edit("a function's body, large unit", (("src/lvm.c", _SHIFT, _SHIFT[:-1] + f" + {by};"),),
                ((_LARGE, "16", str(16 + by)),))


EDITS = (
    small(100),
    large(100),
    Edit("what a stored function pointer leads to", small(200).changes, (("return (f or math.abs)(-3)", "3", "203"),)),
    Edit("a helper that is inlined", (("src/lstrlib.c", _POSITION, _POSITION.replace(" + 1;", ";")),),
         (("return ('abc'):sub(-1)", "c", "bc"),)),
    Edit("a new function with a new variable",
         (("src/lmathlib.c", "static int math_ult (lua_State *L) {",
           "static lua_Integer calls = 40;\nstatic lua_Integer another (void) { return ++calls; }\n"
           "static int math_ult (lua_State *L) {"),
          ("src/lmathlib.c", _ULT, "lua_pushinteger(L, another() + 0 * (a < b));")),
         (("return math.ult(1, 2)", "true", "41"), ("return math.ult(1, 2)", "true", "42"))),
    Edit("a macro in a header that all include", (("src/luaconf.h", '"%.14g"', '"%.5g"'),),
         (("return 1/3", "0.33333333333333", "0.33333"),)),
    Edit("two units that must change together", (*small(300).changes, *large(300).changes),
         (("return math.abs(-3)", "3", "303"), (_LARGE, "16", "316"))),
    Edit("a field more in a struct of which objects live",
         (("src/lstate.h", "  unsigned short nci;", "  int extra;\n  unsigned short nci;"),
          ("src/lapi.c", "res = cast_int(gettotalbytes(g) >> 10);", "res = 7777 + 0 * L->extra;")),
         (("return collectgarbage('count') // 7777", "0.0", "1.0"),)),
    Edit("the function that runs all the time", (("main.c", 'printf("%s%s\\n"', 'printf("%s%s!\\n"'),),
         (("return 1", "1", "1!"),)),
    Edit("a mistake", (("src/lmathlib.c", _ABS, _ABS[:-1] + " +;"),), (("return math.abs(-3)", "3", "nothing"),)),
)
MISTAKE = "a mistake"


@contextmanager
def saved(tree: Path, changes: Sequence[tuple[str, str, str]]) -> Iterator[None]:
    """The edit in the files of `tree`; they are as before afterwards. Raises LiveError where a text is not found once."""
    before = {file: (tree / file).read_bytes() for file, _, _ in changes}
    try:
        for file, old, new in changes:
            path = tree / file
            text = path.read_text(encoding="latin-1")
            if text.count(old) != 1:
                raise LiveError(f"{path}: the text to replace occurs {text.count(old)} times, not once:\n{old}")
            path.write_text(text.replace(old, new), encoding="latin-1")
        yield
    finally:
        for file, content in before.items():
            (tree / file).write_bytes(content)
