"""Bundles of another source than the new image's: each way in which the two can differ is found.

The second version of a program is what a bundle is made of. Against the image of that source it is complete; the image linked
from a third version differs in one place of each of many functions, and each is found.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from bundles import Made, case_of, make_beside
from casetools import Configuration, configurations
from test_completeness import FULL, compared, is_complete


@dataclass(frozen=True)
class Edit:
    """`old` in a piece of source becomes `new`; then `where` differs: its function, or the object of that name."""
    where: str
    source: str
    old: str
    new: str

    def edited(self) -> str:
        assert self.source.count(self.old) == 1, f"{self.where}: {self.old!r} is not there once"
        return self.source.replace(self.old, self.new)


HEAD = """
#include "case.h"
#include <stdio.h>
#include <string.h>
NOINLINE int total(const char **all) { int n = 0; for (; *all; all++) n += puts(*all); return n; }
int (*volatile counting)(const char **) = total;
NOINLINE int first(int n) { return n + 1; }
"""
TAIL = """
void answer(const char *line) { printf("%d\\n", first((int)strlen(line))); }
"""
HELP = """
NOINLINE int help{0}(void) {{
  const char *help[] = {{"ADD{0} <number>", "    adds {0} to it.", "DROP{0}", "    drops {0} of it.", "HELP", "    help.", NULL}};
  return counting(help); }}
"""
ADDRESS = "int one{0} = 1, two{0} = 1; int *const where{0} = &one{0};\nint at{0}(void) {{ return *where{0} + two{0}; }}"
EDITS = [
    Edit("embedded", 'int embedded(int n) { return (int)fwrite("ab\\0cd", 1, (size_t)n, stdout); }', "0cd", "0ce"),
    Edit("help1", HELP.format(1), '"DROP1"', '"ADD1"'),
    Edit("help2", HELP.format(2), "drops 2 of", "drops 2 if"),
    Edit("texts", 'static const char *const texts[] = {"aaa", "bbb", "ccc", "ddd"};\nint text(int n) { return puts(texts[n]); }',
         "bbb", "bbc"),
    Edit("small_table", """char small_table(int n) {
        switch (n) { case 0: return 0; case 1: return 7; case 2: return 99; case 3: return 1; case 4: return 45; case 5: return 3;
                     case 6: return 44; case 7: return 43; case 8: return 21; case 9: return 100; default: return 8; } }""",
         "return 45", "return 46"),
    Edit("before", """static const int left[6] = {1, 2, 3, 4, 5, 6}, right[6] = {1, 2, 3, 4, 5, 7};
        int use_both(int n) { return left[n] + right[n + 1]; }
        int before(int n) { return left[n - 2] + use_both(n); }""", "left[n - 2]", "right[n - 2]"),
    Edit("endings", 'int endings(int n) { return puts(n ? "xabc" : "yabc") + puts("abc"); }', '"yabc"', '"zabc"'),
    Edit("room", "int room[4]; int use_room(int n) { return room[n]; }", "room[4]", "room[400]"),
    Edit("written", "const int written = 5; int use_written(void) { return *(const volatile int *)&written; }",
         "const int written =", "int written ="),
    Edit("where1", ADDRESS.format(1), "one1 = 1, two1 = 1; int *const where1 = &one1;",
         "two1 = 1, one1 = 1; int *const where1 = &two1;"),
    Edit("where2", ADDRESS.format(2), "= &one2;", "= &two2;"),
    Edit("number", "double number(double x) { return x * 1.5 + 0.25; }", "0.25", "0.75"),
    Edit("name", 'int name(void) { static const char kept[] = "kept", other[] = "same"; return puts(kept) + puts(other); }',
         '"kept"', '"left"'),
]
THROWS = """//# Flags: -std=gnu++14
#include "case.h"
void failing(int n);
void thrower(int n) throw(int) { failing(n); }
void failing(int n) { if (n > 3) throw n; }
void answer(const char *line) { thrower((int)strlen(line)); puts("first"); }
"""
CONFIGURATIONS = [c for c in configurations(FULL) if FULL or c.level != "-O0"]


def made_of(folder: Path, configuration: Configuration, shared: Path, versions: tuple[str, ...], suffix: str = "c") -> Made:
    return make_beside(case_of(folder / "case", *versions, suffix=suffix), configuration, folder / "build", shared)


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda c: str(c).replace(" ", ""))
def test_each_edit_that_the_bundle_lacks_is_found(configuration: Configuration, tmp_path: Path, shared_folder: Path) -> None:
    """All functions are in the bundle, since each has a line that changes."""
    source = HEAD + "\n".join(e.source for e in EDITS) + TAIL
    edited = (HEAD + "\n".join(e.edited() for e in EDITS) + TAIL).replace("n + 1", "n + 2")
    made = made_of(tmp_path, configuration, shared_folder, (source, source.replace("n + 1", "n + 2"), edited))
    found = compared(made, 1, made.new[0])
    assert is_complete(found) and not found.kept, found.document() | {"same": len(found.same)}
    found = compared(made, 1, made.new[1])
    differs = {name.partition("~")[0] for name in found.different}
    differs = {n.partition(".")[0] for n in differs}
    names = {"kept": "name", "reltable": "texts"}          # of objects that are called otherwise
    assert {e.where for e in EDITS} <= {names.get(n, n) for n in differs}, found.different


def test_an_exception_specification_that_the_bundle_lacks_is_found(tmp_path: Path, shared_folder: Path) -> None:
    second = THROWS.replace('"first"', '"second"')
    versions = THROWS, second, second.replace("throw(int)", "throw(long)")
    made = made_of(tmp_path, CONFIGURATIONS[0], shared_folder, versions, "cc")
    found = compared(made, 1, made.new[0])
    assert is_complete(found), found
    found = compared(made, 1, made.new[1])
    why = next(why for name, why in found.different.items() if name.startswith("_Z7throweri"))
    assert "it catches _ZTIl there, _ZTIi here" in why, found.different
