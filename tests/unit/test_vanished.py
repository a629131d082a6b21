"""Static variables that clang takes out of an object although the source has them."""
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hotreload_tool import vanished

SOURCE = """
static int folded = 5;                              /* nothing writes to it */
static int kept;
static struct { int a, b; } split;
int f(int x) { static int seen; static int counted; int automatic = x; return folded + seen + counted++ + automatic; }
int g(int x) { kept += x; split.a += x; return kept; }
int h(void) { return split.a; }
"""


@pytest.mark.parametrize("symbol, expected", [
    ("n", ("", "n")), ("f.n", ("f", "n")), ("f.n.2", ("f", "n")), ("v.1", ("", "v")), ("v.1.0", ("", "v")),
    ("_ZL1n", ("", "_ZL1n")), ("_ZN12_GLOBAL__N_11qE", ("", "_ZN12_GLOBAL__N_11qE")), ("_ZL1v.1", ("", "_ZL1v")),
    ("_ZZ3f22jjE4last", ("_Z3f22jj", "last")),
    ("_ZZL3f2jjE1n_0", ("_ZL3f2jj", "n")), ("_ZZN2K02m0EjjE4seen", ("_ZN2K02m0Ejj", "seen")),
])
def test_names_in_the_source(symbol: str, expected: tuple[str, str]) -> None:
    assert vanished.source_name(symbol) == expected


@pytest.mark.parametrize("command, language", [("clang", "c"), ("clang++", "c++"), ("gcc", "c"), ("g++", "c++")])
def test_declarations(tmp_path: Path, command: str, language: str) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")
    obj = tmp_path / "a.o"
    argv = [command, "-x", language, "-O2", "-g", "-c", "-", "-o", str(obj)]
    subprocess.run(argv, input=SOURCE, text=True, check=True, timeout=60)
    found = vanished.declarations(obj)
    names = {name for _, name in found}
    assert {"folded", "kept", "split"} <= {n.removeprefix("_ZL6").removeprefix("_ZL4").removeprefix("_ZL5") for n in names}
    assert {"seen", "counted"} <= {name for function, name in found if function in ("f", "_Z1fi")}
    assert not [name for function, name in found if function in ("g", "_Z1gi", "h", "_Z1hv")]
