"""House rules as tests. Each failure says which line breaks the rule and what to do about it."""
from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
C_LINE = 120
PYTHON_P90, C_P90 = 40, 60          # lines of a function that nine of ten stay within
PYTHON_MOST, C_MOST = 80, 100
_SKIPPED = {".git", ".venv", "build", "dist", "__pycache__", ".hotreload", ".hypothesis", ".pytest_cache", ".mypy_cache",
            ".ruff_cache"}
_TEXT = {".py", ".c", ".h", ".cc", ".def", ".md", ".toml", ".json", ".sh", ".lua", ".S", ""}
_SOURCE = {".py", ".c", ".h", ".cc", ".def"}
# Written in parts, so that this file keeps its own rules.
_REGISTRIES = ("py" "pi.org", "python" "hosted.org", "npm" "js.org", "crates" ".io", "debian" ".org/debian",
               "ubuntu" ".com/ubuntu", "proxy.go" "lang.org", "ruby" "gems.org")
_UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
_MACHINE_PATHS = re.compile(r"(?<![\w.~$}])/(wo" r"rk|home/\w+|opt/py" r"pi)\b")


def files(suffixes: set[str]) -> Iterator[Path]:
    """The repository's own files with one of the suffixes; nothing that a build makes."""
    for folder, folders, names in os.walk(REPO):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.endswith(".egg-info"))
        for name in sorted(names):
            if Path(name).suffix in suffixes and not name.startswith(".sconsign"):
                yield Path(folder, name)


def lines_matching(pattern: re.Pattern[str], suffixes: set[str]) -> list[str]:
    return [f"{path.relative_to(REPO)}:{number}: {line.strip()[:100]}" for path in files(suffixes)
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1) if pattern.search(line)]


def listed(found: list[str]) -> str:
    return "\n  " + "\n  ".join(found)


# ---- text ------------------------------------------------------------------------------------------------------


def test_nothing_is_left_for_later() -> None:
    found = lines_matching(_UNFINISHED, _TEXT)
    assert not found, f"finish it, or say in docs what is not supported:{listed(found)}"


def test_no_registry_is_named() -> None:
    found = lines_matching(re.compile("|".join(map(re.escape, _REGISTRIES))), _TEXT)
    assert not found, f"let the package manager's own configuration say where packages come from:{listed(found)}"


def test_no_path_of_one_machine() -> None:
    found = lines_matching(_MACHINE_PATHS, _TEXT)
    assert not found, f"say it relative to the repository, or by a variable:{listed(found)}"


def test_lines_end_cleanly() -> None:
    found = lines_matching(re.compile(r"[ \t\r]$"), _SOURCE)
    assert not found, f"remove the white space at the end:{listed(found)}"


def test_lines_of_c_are_short() -> None:
    found = lines_matching(re.compile(rf"^.{{{C_LINE + 1},}}$"), _SOURCE - {".py"})     # ruff looks after Python
    assert not found, f"cut to {C_LINE} characters:{listed(found)}"


def test_files_end_with_a_newline() -> None:
    found = [str(path.relative_to(REPO)) for path in files(_TEXT) if (text := path.read_bytes()) and text[-1:] != b"\n"]
    assert not found, f"end these files with a newline:{listed(found)}"


def test_no_tabs_in_sources() -> None:
    found = lines_matching(re.compile("\t"), _SOURCE)
    assert not found, f"indent with spaces; write \\t in strings:{listed(found)}"


def test_sources_are_for_the_oldest_supported_python() -> None:
    found = []
    for path in files({".py"}):
        try:
            ast.parse(path.read_text(), feature_version=(3, 10))
        except SyntaxError as e:
            found.append(f"{path.relative_to(REPO)}:{e.lineno}: {e.msg}")
    assert not found, f"say it in the syntax of Python 3.10:{listed(found)}"


def test_scripts_run() -> None:
    scripts = [*(path for path in (REPO / "script").iterdir() if not path.suffix), REPO / ".ci" / "run"]
    found = [str(path.relative_to(REPO)) for path in scripts if not os.access(path, os.X_OK)]
    assert not found, f"chmod +x:{listed(found)}"
    for path in scripts:
        shell = path.read_text().splitlines()[0]
        if shell.endswith("sh"):
            subprocess.run(["sh", "-n", path], check=True, timeout=60)


# ---- functions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    """One function definition. `comment` is the comment right above it (C only)."""
    path: Path
    name: str
    line: int
    length: int
    comment: str = ""
    body: str = ""

    def __str__(self) -> str:
        return f"{self.path.relative_to(REPO)}:{self.line}: {self.name}: {self.length} lines"


def python_functions() -> list[Function]:
    found = []
    for path in files({".py"}):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
                found.append(Function(path, node.name, node.lineno, node.end_lineno - node.lineno + 1))
    return found


_C_HEAD = re.compile(r"^(?:[A-Za-z_][\w \t*()]*?)\b(\w+)\([^;{}]*\)\s*\{", re.M)


def c_functions() -> list[Function]:
    """Definitions that begin in the first column, as our style has them."""
    found = []
    for path in (REPO / "runtime").rglob("*.c"):
        text = path.read_text()
        for match in _C_HEAD.finditer(text):
            line = text[:match.start()].count("\n") + 1
            one_line = "\n" not in match[0] and text[match.end():].split("\n", 1)[0].rstrip().endswith("}")
            end = text.index("\n" if one_line else "\n}", match.end())
            body = text[match.end():end]
            comment = re.search(r"/\*(?:(?!\*/).)*\*/\n\Z", text[:match.start()], re.S)
            found.append(Function(path, match[1], line, text[match.start():end].count("\n") + (1 if one_line else 2),
                                  comment[0] if comment else "", body))
    return found


@pytest.mark.parametrize("functions, p90, most", [
    pytest.param(python_functions(), PYTHON_P90, PYTHON_MOST, id="python"),
    pytest.param(c_functions(), C_P90, C_MOST, id="c")])
def test_functions_are_small(functions: list[Function], p90: int, most: int) -> None:
    by_length = sorted(functions, key=lambda f: f.length)
    assert by_length[len(by_length) * 9 // 10].length <= p90, (
        f"nine of ten functions stay within {p90} lines; split the longest into named steps:"
        + listed([str(f) for f in by_length[-10:]]))
    too_long = [str(f) for f in by_length if f.length > most]
    assert not too_long, f"no function has more than {most} lines; split it into named steps:{listed(too_long)}"


# ---- the runtime -----------------------------------------------------------------------------------------------

COMMIT = "Context: commit"
_CALL = re.compile(r"\b([a-z_]\w*)\s*\(")
_NO_CALLS = {"if", "for", "while", "switch", "return", "sizeof", "defined", "_Alignof"}
_ALLOWED = re.compile(r"^(memcpy|memcmp|memset|__atomic_\w+|__builtin_\w+|hr_pass)$")     # hr_pass: nothing but in tests


def test_commit_calls_only_what_it_may() -> None:
    """Between the first and the last store of a commit nothing may allocate, lock or fail."""
    functions = c_functions()
    commit = {f.name for f in functions if COMMIT in f.comment}
    unmarked = [str(f) for f in functions if f.name.startswith("commit_") and f.name not in commit]
    assert not unmarked, f"say what they may do, in a comment above: /* {COMMIT}. … */{listed(unmarked)}"
    assert commit, f"no function of the runtime says {COMMIT!r}: this test looks at nothing"
    wrong = [f"{f}: calls {called}" for f in functions if COMMIT in f.comment
             for called in _CALL.findall(re.sub(r"/\*.*?\*/", "", f.body, flags=re.S))
             if called not in _NO_CALLS and called not in commit and not _ALLOWED.match(called)]
    assert not wrong, (f"a function of {COMMIT!r} allocates nothing, takes no lock and cannot fail: prepare what it needs, "
                       f"or give what it calls the same context:{listed(wrong)}")


_STDIO = re.compile(r"\b(v?f?printf|puts|fopen|malloc|calloc|realloc|strdup)\s*\(")


def test_runtime_neither_prints_nor_uses_the_programs_heap() -> None:
    """The agent lives in somebody else's process: its heap may be replaced, locked or damaged."""
    found = [f"{path.relative_to(REPO)}:{number}: {line.strip()}" for path in sorted((REPO / "runtime").rglob("*.[ch]"))
             for number, line in enumerate(re.sub(r"/\*.*?\*/|\"[^\"\n]*\"", lambda m: "\n" * m[0].count("\n"), path.read_text(),
                                                  flags=re.S).splitlines(), 1) if _STDIO.search(line)]
    assert not found, f"use mmap, a fixed buffer and hr_text:{listed(found)}"
