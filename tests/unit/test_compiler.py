"""Which flags a compiler takes is asked once, and again when the compiler is another one."""
from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hotreload_tool import compiler


def fake(folder: Path, refuses: str) -> list[str]:
    """A compiler that writes down how often it was asked and refuses one flag."""
    folder.mkdir(exist_ok=True)
    path = folder / "fakecc"
    path.write_text(f'#!/bin/sh\necho asked >> "{folder}/log"\n'
                    f'case " $* " in *" {refuses} "*) echo "no {refuses}" >&2; exit 1;; esac\n')
    path.chmod(0o755)
    return ["fakecc"]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`kept_flags` as by a process of its own: nothing is in memory."""
    def ask(write: bool = True, stubs: str = "plt") -> tuple[str, ...]:
        compiler._flags.cache_clear()
        compiler._kept.cache_clear()
        environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
        return compiler.kept_flags(["fakecc"], "c", environment, str(tmp_path / "kept"), write, stubs)
    return ask


def asked(tmp_path: Path) -> int:
    return len((tmp_path / "bin" / "log").read_text().splitlines())


def test_a_compiler_is_asked_once(tmp_path, kept):
    fake(tmp_path / "bin", "-fno-plt")
    assert kept() == kept() == compiler.CANDIDATES[1] and asked(tmp_path) == 2


def test_another_compiler_of_the_same_name_is_asked_again(tmp_path, kept):
    fake(tmp_path / "bin", "-fno-plt")
    first = kept()
    fake(tmp_path / "bin", "-fno-ipa-ra")
    os.utime(tmp_path / "bin" / "fakecc", ns=(1, 1))
    assert first == compiler.CANDIDATES[1] and kept() == compiler.CANDIDATES[3]


def test_each_kind_of_stubs_has_flags_of_its_own(tmp_path, kept):
    fake(tmp_path / "bin", "-nothing")
    plt, entry = kept(), kept(stubs="entry")
    assert plt == kept() and entry == kept(stubs="entry")
    assert {"-fpatchable-function-entry=18,16"} == set(entry) - set(plt) and len(list((tmp_path / "kept").iterdir())) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", '["-O3"]', "7"])
def test_what_is_not_ours_in_the_file_is_not_believed(tmp_path, kept, damage):
    fake(tmp_path / "bin", "-nothing")
    good = kept()
    [file] = (tmp_path / "kept").iterdir()
    file.write_text(damage)
    assert kept() == good == compiler.CANDIDATES[0] and tuple(json.loads(file.read_text())) == good


def test_nothing_is_written_where_nothing_may_be(tmp_path, kept):
    fake(tmp_path / "bin", "-nothing")
    assert kept(write=False) == compiler.CANDIDATES[0] and not (tmp_path / "kept").exists()


def test_a_directory_that_cannot_be_written_costs_time_only(tmp_path, kept):
    fake(tmp_path / "bin", "-nothing")
    (tmp_path / "kept").write_text("a file")
    assert kept() == kept() == compiler.CANDIDATES[0] and asked(tmp_path) == 2


def test_a_compiler_that_takes_nothing_is_named(tmp_path, kept):
    fake(tmp_path / "bin", "-ffunction-sections")
    with pytest.raises(compiler.Unsupported, match="fakecc cannot be used.*no -ffunction-sections"):
        kept()
    assert not (tmp_path / "kept").exists()
