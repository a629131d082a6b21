"""Writes a project in C and C++ of any size, to measure builds and patches with.

usage: python benchmarks/generate.py DIRECTORY [--objects N] [--functions N] [--language mixed|c|c++]

The same arguments give the same files. Units are src/NNN/uNNNNN.c and .cc, in groups of 20 that share a header; a unit
includes the headers of its own group and of two others, and calls functions of other units. The last unit, src/large.cc,
is a large one that includes headers of the C++ library; src/main.c has the main loop.

    scons                        builds build/app, with the tool of this repository or of TOOL=SITE_TOOLS
    scons PLAIN=1                builds plain/app without the tool
    … OPT=-O2 LINKER=gold CC='ccache gcc' CXX=…    how both are compiled and linked

build/app reads lines from its standard input: `value UNIT` prints `value UNIT NUMBER`, what the function
uNNNNN_value() of that unit returns; `until UNIT NUMBER` asks it until it returns NUMBER and then prints
`until UNIT NUMBER AT` with the time, CLOCK_MONOTONIC in ns. `edit()` below changes what it returns.
"""
from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
GROUP = 20                  # units that share a header
_FOLDER = 100               # units in one directory
_LARGE = 600                # functions of the large unit, at most a tenth of all
_VARIANTS = 48              # units of one variant differ in names only, which have equal lengths
_PRIVATE = 5                # one function in so many is file-local
_WORDS = ("account", "buffer", "cursor", "device", "entry", "frame", "graph", "handle", "index", "journal", "kernel", "layer",
          "matrix", "node", "offset", "packet", "queue", "record", "sample", "table", "update", "vector", "window", "zone")


@dataclass(frozen=True)
class Shape:
    """What a project is to be."""
    objects: int = 100          # with main.c and large.cc
    functions: int = 10_000     # in all
    language: str = "mixed"     # | "c" | "c++"

    @property
    def units(self) -> int:
        """uNNNNN of the small units are 0 … units-1; `units` itself is the large one."""
        return self.objects - 2

    @property
    def large(self) -> int:
        """Functions of the large unit."""
        return max(min(_LARGE, self.functions // 10), 10)

    def size(self, unit: int) -> int:
        """Functions of a unit: all together are as many as asked for."""
        rest = self.functions - self.large - 3
        return rest // self.units + (unit < rest % self.units)

    def is_cxx(self, unit: int) -> bool:
        return unit == self.units or self.language == "c++" or self.language == "mixed" and unit % 2 == 1

    def path(self, unit: int) -> str:
        if unit == self.units:
            return "src/large.cc"
        return f"src/{unit // _FOLDER:03}/u{unit:05}.{'cc' if self.is_cxx(unit) else 'c'}"


def edit(root: Path, unit: int, value: int, shape: Shape) -> Path:
    """Let the function uNNNNN_value() of a unit return `value`; returns the file."""
    path = root / shape.path(unit)
    text, changed = re.subn(r"return -?\d+;( +// the value)", rf"return {value};\1", path.read_text())
    if changed != 1:
        raise ValueError(f"{path} has {changed} values to edit")
    path.write_text(text)
    return path


def write(root: Path, shape: Shape) -> None:
    """Write the project. Raises ValueError for a shape that makes no sense."""
    if shape.objects < 4 or shape.functions < shape.objects * 8:
        raise ValueError("at least 4 objects, and 8 functions for each")
    for path, text in _files(shape):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def _files(shape: Shape) -> Iterator[tuple[str, str]]:
    yield "SConstruct", _SCONSTRUCT
    yield "include/base.h", _BASE
    yield "include/base.hpp", _BASE_CXX
    for group in range(-(-shape.units // GROUP)):
        yield f"include/groups/g{group:03}.h", _group_header(shape, group)
    for unit in range(shape.units):
        yield shape.path(unit), _cxx_unit(shape, unit) if shape.is_cxx(unit) else _c_unit(shape, unit)
    yield shape.path(shape.units), _large_unit(shape)
    yield "src/main.c", _main(shape)


# ---- headers ---------------------------------------------------------------------------------------------------

_SCONSTRUCT = f"""\
import os

DefaultEnvironment(tools=[])
plain = ARGUMENTS.get('PLAIN', '0') == '1'
build = ARGUMENTS.get('BUILD', 'plain' if plain else 'build')
env = Environment(tools=['default'] + ([] if plain else ['hotreload']), ENV={{'PATH': os.environ['PATH']}},
                  toolpath=[ARGUMENTS.get('TOOL', '{REPO / "site_scons" / "site_tools"}')],
                  CC=ARGUMENTS.get('CC', 'gcc'), CXX=ARGUMENTS.get('CXX', 'g++'),
                  CCFLAGS=[ARGUMENTS.get('OPT', '-O1')] + (['-g'] if plain else []), CPPPATH=['#include'],
                  LINK='$CXX', LINKFLAGS=['-fuse-ld=' + ARGUMENTS.get('LINKER', 'bfd')], MAXLINELENGTH=100000)
env['LINKCOM'] = "${{TEMPFILE('" + env['LINKCOM'] + "', '$LINKCOMSTR')}}"
env.VariantDir(build, 'src', duplicate=0)
env.Program(build + '/app', [f.path.replace('src', build, 1) for pattern in ('*.c', '*.cc', '*/*.c', '*/*.cc')
                             for f in Glob('src/' + pattern)])
"""

_BASE = """\
#ifndef BASE_H
#define BASE_H
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct point { int x, y; } point;
typedef struct record { int id; const char *name; point at; struct record *next; uint64_t flags; } record;
typedef enum state { IDLE, READY, RUNNING, DONE } state;
typedef int (*operation)(int);

static inline int mix(int a, int b) { return a * 31 + (b ^ (a >> 3)); }
static inline point moved(point p, int x, int y) { p.x += x; p.y += y; return p; }

#ifdef __cplusplus
}
#endif
#endif
"""

_BASE_CXX = """\
#ifndef BASE_HPP
#define BASE_HPP
#include "base.h"

class Shape {
public:
    explicit Shape(int id) : id_(id) {}
    virtual ~Shape() {}
    virtual int area(int scale) const { return id_ * scale; }
    virtual const char *name() const = 0;
protected:
    int id_;
};

template <class T> T limited(T value, T low, T high) { return value < low ? low : value > high ? high : value; }

template <class T, int N> struct Ring {
    T items[N];
    unsigned at;
    void put(T item) { items[at++ % N] = item; }
    T last() const { return items[(at + N - 1) % N]; }
};
#endif
"""


def _group_header(shape: Shape, group: int) -> str:
    word = _WORDS[group % len(_WORDS)]
    fields = "\n".join(f"    int {word}_{n};" for n in range(2 + group % 5))
    units = range(group * GROUP, min((group + 1) * GROUP, shape.units))
    prototypes = "\n".join(f"extern int u{u:05}_level;\nint u{u:05}_value(void);\nint u{u:05}_enter(int x);" for u in units)
    before = f'#include "g{group - 1:03}.h"\n' if group % 4 else ""
    return f"""\
#ifndef G{group:03}_H
#define G{group:03}_H
#include "../base.h"
{before}
#ifdef __cplusplus
extern "C" {{
#endif

typedef struct {word}_{group:03} {{
{fields}
    record *owner;
}} {word}_{group:03};

{prototypes}

#ifdef __cplusplus
}}
#endif
#endif
"""


# ---- units -----------------------------------------------------------------------------------------------------


def _top(shape: Shape, unit: int, chance: random.Random) -> tuple[str, list[int]]:
    """The includes of a unit, and units whose functions it may call."""
    own, groups = unit // GROUP, -(-shape.units // GROUP)
    used = list(dict.fromkeys((own + distance) % groups for distance in (0, chance.randrange(1, 9), chance.randrange(9, 99))))
    includes = "".join(f'#include "groups/g{g:03}.h"\n' for g in used)
    return includes, [min(g * GROUP + chance.randrange(GROUP), shape.units - 1) for g in used for _ in range(2)]


def _body(unit: int, n: int, last: bool, others: list[int], chance: random.Random) -> str:
    """Statements of one small function. Calls are guarded, so that no call of a function runs many others."""
    word = chance.choice(_WORDS)
    kind = chance.randrange(6)
    if last or kind == 0:
        return f"    calls += x;\n    return mix(x, {chance.randrange(1000)});\n"
    if kind == 1:
        return f"    if (x > {5000 + n})\n        return u{chance.choice(others):05}_enter(x - 1);\n    return x + {n};\n"
    if kind == 2:
        return f'    last_used.id = x;\n    last_used.name = "{word} {n % 16} of u{unit:05}";\n    return last_used.id;\n'
    if kind == 3:
        return (f"    int sum = {n};\n    for (int i = 0; i < (x & 7); i++)\n        sum = mix(sum, i + u{unit:05}_level);\n"
                "    return sum;\n")
    if kind == 4:
        mask = chance.randrange(4096)
        return f"    if (x > {6000 + n})\n        return u{unit:05}_f{n + 1:04}(x - 2);\n    return x ^ {mask};\n"
    return (f"    point p = moved(last_used.at, x, {n});\n    last_used.at = p;\n"
            f"    return p.x > {chance.randrange(100, 9999)} ? p.y : names[x & 3][0];\n")


def _statics(unit: int, chance: random.Random) -> str:
    words = ", ".join(f'"{chance.choice(_WORDS)}"' for _ in range(4))
    return (f"static int calls;\nstatic const char *const names[] = {{{words}}};\n"
            f'static record last_used = {{{unit % _VARIANTS}, "u{unit:05}", {{1, 2}}, 0, {chance.randrange(1 << 30)}}};\n')


def _level(unit: int) -> int:
    return unit % _VARIANTS % 7


def _private(count: int) -> int:
    return (count - 3) // _PRIVATE


def _privates(unit: int, count: int, chance: random.Random) -> str:
    """File-local functions, and the table that keeps them from being inlined away. All units use the same names."""
    bodies = "".join(f"static int step_{n:03}(int x)\n{{\n    calls++;\n    return mix(x, {chance.randrange(10_000)});\n}}\n\n"
                     for n in range(count))
    table = ", ".join(f"step_{n:03}" for n in range(count))
    return f"{bodies}static const operation steps[] = {{{table}}};\n\n"


def _publics(unit: int, count: int, others: list[int], chance: random.Random) -> str:
    prototypes = "".join(f"int u{unit:05}_f{n:04}(int x);\n" for n in range(count))
    bodies = "".join(f"int u{unit:05}_f{n:04}(int x)\n{{\n{_body(unit, n, n == count - 1, others, chance)}}}\n\n"
                     for n in range(count))
    return f"{prototypes}\n{bodies}"


def _ends(unit: int, privates: int) -> str:
    steps = f"steps[x % {privates}](x)" if privates else "x"
    return (f"int u{unit:05}_level = {_level(unit)};\n\n"
            f"int u{unit:05}_enter(int x)\n{{\n    return x > 0 ? {steps} : u{unit:05}_level;\n}}\n\n"
            f"int u{unit:05}_value(void)\n{{\n    calls++;\n    return {unit % _VARIANTS};    // the value\n}}\n")


def _c_unit(shape: Shape, unit: int) -> str:
    chance = random.Random(unit % _VARIANTS)
    includes, others = _top(shape, unit, chance)
    count = shape.size(unit)
    privates = _private(count)
    return (f"// u{unit:05}.\n{includes}\n{_statics(unit, chance)}extern int u{unit:05}_level;\n\n"
            f"{_privates(unit, privates, chance)}{_publics(unit, count - privates - 2, others, chance)}{_ends(unit, privates)}")


def _cxx_unit(shape: Shape, unit: int) -> str:
    """A third of its functions are methods."""
    chance = random.Random(unit % _VARIANTS)
    includes, others = _top(shape, unit, chance)
    count = shape.size(unit)
    privates, methods = _private(count), count // 3
    word = _WORDS[unit % _VARIANTS % len(_WORDS)]
    name = word.capitalize()
    publics = count - privates - 2 - methods
    declared = "".join(f"    int {chance.choice(_WORDS)}_{n:03}(int x) const;\n" for n in range(methods - 1))
    bodies = "".join(f"int {name}::{m}(int x) const\n{{\n    return limited(mix(x, id_), -{n}, {chance.randrange(9999)});\n}}\n\n"
                     for n, m in enumerate(re.findall(r"int (\w+)\(int x\) const;", declared)))
    return (f'// u{unit:05}.\n#include "base.hpp"\n{includes}\n{_statics(unit, chance)}\n'
            f"{_privates(unit, privates, chance)}"
            f"namespace u{unit:05} {{\n\nclass {name} : public Shape {{\npublic:\n    explicit {name}(int id) : Shape(id) {{}}\n"
            f'    int area(int scale) const override {{ return scale * {_level(unit)}; }}\n'
            "    const char *name() const override;\n"
            f"{declared}}};\n\nconst char *{name}::name() const\n{{\n    return \"{word} u{unit:05}\";\n}}\n\n"
            f"{bodies}}}  // namespace\n\nextern \"C\" {{\n\n"
            f"{_publics(unit, publics, others, chance)}{_ends(unit, privates)}\n}}  // extern \"C\"\n")


def _large_unit(shape: Shape) -> str:
    """Headers of the C++ library, and functions that use them."""
    unit, chance = shape.units, random.Random(shape.units)
    kinds = ("    std::vector<int> v(x & 15, {n});\n    std::sort(v.begin(), v.end());\n    return v.empty() ? x : v.back();\n",
             '    std::string s("{word}");\n    s += std::to_string(x + {n});\n    return static_cast<int>(s.size());\n',
             "    table[x & 63] += std::to_string({n});\n    return static_cast<int>(table.size());\n",
             "    auto add = [x](int y) {{ return mix(x, y + {n}); }};\n    return std::max(add(x), add({n}));\n")
    ends = _ends(unit, 0).replace("int u", "extern int u", 1).replace(f" = {_level(unit)};", ";", 1)
    bodies = "".join(f"int u{unit:05}_f{n:04}(int x)\n{{\n{chance.choice(kinds).format(n=n, word=chance.choice(_WORDS))}}}\n\n"
                     for n in range(shape.large - 2))
    return ("// The large unit.\n#include <algorithm>\n#include <functional>\n#include <iostream>\n#include <map>\n"
            '#include <memory>\n#include <string>\n#include <vector>\n#include "base.hpp"\n#include "groups/g000.h"\n\n'
            "static int calls;\nstatic std::map<int, std::string> table;\n\n"
            f"{bodies}extern \"C\" {{\n\n{ends}\n"
            f"int u{unit:05}_level = {_level(unit)};\n\n}}  // extern \"C\"\n")


# ---- the program -----------------------------------------------------------------------------------------------


def _main(shape: Shape) -> str:
    units = range(shape.units + 1)
    prototypes = "\n".join(f"int u{u:05}_value(void);" for u in units)
    table = ",\n".join(f"    u{u:05}_value" for u in units)
    return f"""\
// The main loop.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

{prototypes}

static int (*const values[])(void) = {{
{table},
}};

static long long now(void)
{{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}}

static long long until(unsigned long unit, int wanted)
{{
    const struct timespec nap = {{0, 200 * 1000}};
    while (values[unit]() != wanted)
        nanosleep(&nap, 0);
    return now();
}}

int main(void)
{{
    char line[128], verb[16];
    unsigned long unit;
    int wanted;
    setvbuf(stdout, 0, _IOLBF, 0);
    printf("ready %zu\\n", sizeof values / sizeof *values);
    while (fgets(line, sizeof line, stdin)) {{
        int got = sscanf(line, "%15s %lu %d", verb, &unit, &wanted);
        if (got < 2 || unit >= sizeof values / sizeof *values)
            printf("what?\\n");
        else if (got == 2 && !strcmp(verb, "value"))
            printf("value %lu %d\\n", unit, values[unit]());
        else if (got == 3 && !strcmp(verb, "until"))
            printf("until %lu %d %lld\\n", unit, wanted, until(unit, wanted));
    }}
    return 0;
}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--objects", type=int, default=Shape.objects)
    parser.add_argument("--functions", type=int, default=Shape.functions, help="in all")
    parser.add_argument("--language", choices=("mixed", "c", "c++"), default=Shape.language)
    args = parser.parse_args()
    write(args.directory, Shape(args.objects, args.functions, args.language))


if __name__ == "__main__":
    main()
