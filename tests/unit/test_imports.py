"""imports.py: what is linked with a stand-in imports what it would import from the library itself."""
from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hotreload_tool import elf, imports, libraries

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None or shutil.which("ld.bfd") is None, reason="needs gcc and ld.bfd")

# Functions of several versions (pow), data (stdout), a name that is the tail of another (log, of clog), a weak one.
SOURCE = """
#include <complex.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
extern void *missing(void) __attribute__((weak));
double use(double x, const char *s) {
  errno = 0;
  fprintf(stdout, "%s %d", strerror(errno), isalpha(s[0]));
  return pow(x, x) + log(x) + creal(clog(x)) + atof(s) + (missing ? 1 : 0) + strlen(malloc(3));
}
"""


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imports")
    (folder / "use.c").write_text(SOURCE)
    subprocess.run(["gcc", "-O1", "-fPIC", "-fno-builtin", "-c", "use.c", "-o", "use.o"], cwd=folder, check=True)
    return folder / "use.o"


def needed() -> list[str]:
    found, missing = libraries.find(["libm.so.6", "libc.so.6"], "/nowhere/prog", [], ["gcc"], [])
    assert len(found) == 2 and not missing
    return found


def undefined(path: Path) -> set[str]:
    return {s.name for s in elf.read(path).symbols if s.shndx == elf.SHN_UNDEF and s.name}


def link(unit: Path, name: str, libraries: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ld.bfd", "-shared", "-z", "defs", "--hash-style=gnu", "-o", unit.with_name(name), unit, *libraries],
                          capture_output=True, text=True)


def imported(path: Path) -> set[str]:
    """Names with versions, types, and the libraries that the versions are of."""
    shown = subprocess.run(["readelf", "-W", "--dyn-syms", "-V", "-d", path], capture_output=True, text=True, check=True).stdout
    symbols = {" ".join(line.split()[3:]) for line in shown.splitlines() if " UND " in line and "@" in line}
    symbols = {re.sub(r"\(\d+\)", "", s).strip() for s in symbols}
    return symbols | set(re.findall(r"File: (\S+)", shown)) | set(re.findall(r"Shared library: \[(.*)\]", shown))


def test_the_same_symbols_versions_and_libraries(unit: Path) -> None:
    stand_ins = imports.stand_ins(needed(), undefined(unit), unit.parent)
    assert len(stand_ins) == 2 and all(Path(s).parent == unit.parent for s in stand_ins)
    assert sum(Path(s).stat().st_size for s in stand_ins) < sum(Path(n).stat().st_size for n in needed()) / 4
    for name, libs in (("whole.so", needed()), ("small.so", stand_ins)):
        done = link(unit, name, libs)
        assert done.returncode == 0, done.stderr
    whole = imported(unit.with_name("whole.so"))
    assert imported(unit.with_name("small.so")) == whole
    assert any("pow@GLIBC" in s for s in whole) and "libm.so.6" in whole and any(s.startswith("OBJECT") for s in whole), whole


def test_what_nobody_defines_is_missing_all_the_same(unit: Path) -> None:
    stand_ins = imports.stand_ins(needed(), undefined(unit) - {"pow"}, unit.parent)
    done = link(unit, "less.so", stand_ins)
    assert done.returncode and "undefined reference to `pow'" in done.stderr


def test_libraries_that_define_nothing_wanted_are_left_out(unit: Path) -> None:
    assert imports.stand_ins(needed(), {"puts"}, unit.parent) == [str(unit.parent / "library-1.so")]


def test_what_is_not_understood_is_taken_as_it_is(unit: Path, tmp_path: Path) -> None:
    script, torn = tmp_path / "libc.so", tmp_path / "torn.so"
    script.write_text("GROUP ( libc.so.6 )")
    torn.write_bytes(Path(needed()[1]).read_bytes()[:5000])
    paths = [str(script), str(torn), str(unit), str(tmp_path / "none.so")]
    assert imports.stand_ins(paths, {"puts"}, tmp_path) == paths


@pytest.mark.parametrize("words", [{0: 0}, {0: 1 << 31}, {4: 1 << 31}, {8: 1 << 31}])
def test_a_damaged_table_is_left_to_the_linker(tmp_path: Path, words: dict[int, int]) -> None:
    """The head of the hash table: buckets, first index, size of the filter."""
    library, = (path for path in needed() if "libm" in path)
    data = bytearray(Path(library).read_bytes())
    table = next(s for s in elf.read(Path(library)).sections if s.name == ".gnu.hash")
    for at, value in words.items():
        start = data.index(table.data[16:48]) - 16 + at
        data[start:start + 4] = value.to_bytes(4, "little")
    damaged = tmp_path / "libm.so.6"
    damaged.write_bytes(data)
    assert imports.stand_ins([str(damaged)], ["pow"], tmp_path) in ([str(damaged)], [])
