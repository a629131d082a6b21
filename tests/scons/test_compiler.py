"""Finding the flags of a compiler. Compilers are shell scripts that refuse what an older or other one refuses."""
from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hotreload_tool import compiler

PATH = {"PATH": os.environ["PATH"]}


def fake_compiler(path: Path, refuses: str) -> list[str]:
    """A compiler that fails with a sentence when an argument matches the shell pattern `refuses`; counts its calls."""
    path.write_text(f"""#!/bin/sh
echo call >> {path}.calls
for word in "$@"; do
  case "$word" in {refuses}) echo "fake: unknown option $word" >&2; exit 1;; esac
done
""")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return [str(path)]


@pytest.mark.parametrize("refuses, expected", [
    ("-nothing", compiler.CANDIDATES[0]),
    ("-mno-direct-extern-access", compiler.CANDIDATES[1]),
    ("-fno-ipa-reference-addressable|-mno-direct-extern-access", compiler.CANDIDATES[2]),
    ("-fno-ipa-ra|-fno-gnu-unique", compiler.CANDIDATES[3]),
    ("-fno-ipa-ra|-fno-gnu-unique|-fkeep-persistent-storage-variables", compiler.CANDIDATES[4]),
])
def test_takes_the_first_set_that_works(tmp_path: Path, refuses: str, expected: tuple[str, ...]) -> None:
    command = fake_compiler(tmp_path / "cc", refuses)
    assert compiler.flags(command, "c", PATH) == expected
    assert compiler.flags(command, "c", PATH) == expected
    assert len((tmp_path / "cc.calls").read_text().splitlines()) == compiler.CANDIDATES.index(expected) + 1


def test_unsupported_compiler_is_named_with_its_own_words(tmp_path: Path) -> None:
    command = fake_compiler(tmp_path / "tcc", "-f*")
    with pytest.raises(compiler.Unsupported, match=r"tcc cannot be used.*fake: unknown option.*use gcc"):
        compiler.flags(command, "c", PATH)


def test_missing_compiler() -> None:
    with pytest.raises(compiler.Unsupported, match="no-such-compiler cannot be run"):
        compiler.flags(["no-such-compiler"], "c", PATH)


@pytest.mark.parametrize("command, language", [("gcc", "c"), ("g++", "c++")])
def test_the_installed_compiler_is_supported(command: str, language: str) -> None:
    found = compiler.flags([command], language, PATH)
    assert {"-ffunction-sections", "-fdata-sections", "-fno-common", "-g"} <= set(found)


@pytest.mark.parametrize("words, library", [
    (["-O2"], False), (["-fPIC"], True), (["-fpic", "-c"], True), (["-fPIC", "-fPIE"], False), (["-fPIE", "-fPIC"], True),
    (["-fPIC", "-fno-pic"], False), (["-fPIC", "-fno-pie"], False), (["-pie", "x-fPIC"], False),
])
def test_code_of_a_library_is_known_by_the_last_model(words: list[str], library: bool) -> None:
    assert compiler.of_a_library(words) is library


def test_functions_of_libraries_are_looked_up_when_they_are_called() -> None:
    for candidate in compiler.CANDIDATES:
        assert "-fno-plt" not in compiler.for_library(candidate)
        assert set(candidate) - set(compiler.for_library(candidate)) <= {"-fno-plt"}
    assert "-fno-plt" in compiler.CANDIDATES[0]


def test_stubs_at_the_entry_need_room_and_no_other_way_for_calls(tmp_path: Path) -> None:
    found = compiler.flags(["gcc"], "c", PATH, "entry")
    assert set(found) - set(compiler.flags(["gcc"], "c", PATH)) == {"-fpatchable-function-entry=18,16"}
    assert "-fno-plt" not in found
    command = fake_compiler(tmp_path / "cc", "-fpatchable*")
    with pytest.raises(compiler.Unsupported, match="cc cannot be used.*fpatchable.*or HOTRELOAD_STUBS=plt"):
        compiler.flags(command, "c", PATH, "entry")
    assert compiler.flags(command, "c", PATH) == compiler.CANDIDATES[0]
