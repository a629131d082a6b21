"""Damaged input for every reader: a little each time, much with HOTRELOAD_TEST_SIZE=full. See docs/fuzzing.md."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from inotify_simple import INotify, flags

REPO = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("fuzz.py")
# Executions in the small size and in full: what is slow gets fewer.
SIZES = {"elf": (2000, 200000), "object": (300, 30000), "unwind": (2000, 200000), "image": (300, 30000),
         "objectmap": (2000, 200000), "archive": (1000, 100000), "key": (300, 20000), "bundle": (1500, 500000),
         "verify": (60, 20000)}


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("target", SIZES)
def test_nothing_but_the_documented_answers(target: str, full_size: bool, tmp_path: Path) -> None:
    executions = SIZES[target][full_size]
    figures = tmp_path / "figures.json"
    done = subprocess.run([sys.executable, DRIVER, "--target", target, "--executions", str(executions), "--json", figures],
                          capture_output=True, text=True, timeout=7000)
    assert done.returncode == 0, done.stdout + done.stderr
    result, = json.loads(figures.read_text())
    assert result["executions"] == executions and not result["findings"]
    assert result["answers"]["refused"] > executions // 10, "the damage does not reach the reader"
    assert sum(n for answer, n in result["answers"].items() if answer != "refused") > 0, "all damage is found at once"
    assert result["reached"] > result["lines"] // 8


def test_a_finding_is_told_and_kept(tmp_path: Path) -> None:
    """The driver itself: a reader that raises what it never promised makes it fail."""
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import fuzz, targets, random; from pathlib import Path\n"
            "def run(data):\n"
            "    if data[:1] != b'g': raise ZeroDivisionError('odd')\n"
            "    return 'taken'\n"
            "t = targets.Target('own', [b'good good good'], targets.mutations.some_bytes, run, ['archive.py'])\n"
            "r = fuzz.fuzz(t, 2000, 60, 1, Path(sys.argv[2]))\n"
            "print(len(r.findings), r.findings[0])")
    done = subprocess.run([sys.executable, "-c", code, DRIVER.parent, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "ZeroDivisionError" in done.stdout and any(path.read_bytes()[:1] != b"g" for path in tmp_path.iterdir())


def test_a_run_that_is_ended_has_its_figures(tmp_path: Path) -> None:
    figures, seeds = tmp_path / "figures.json", tmp_path / "seeds"
    command = [sys.executable, DRIVER, "--target", "elf", "--target", "key", "--executions", "100000000", "--json", figures,
               "--seeds", seeds]
    with INotify() as notify:
        notify.add_watch(tmp_path, flags.CREATE)
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert [event.name for event in notify.read(timeout=120_000)] == ["seeds"]      # it listens when it makes them
            run.terminate()
            said, _ = run.communicate(timeout=120)
        finally:
            run.kill()
            run.wait()
    assert run.returncode == 0 and "elf: " in said
    result, = json.loads(figures.read_text())
    assert 0 <= result["executions"] < 100000000 and not result["findings"]


def test_the_page_has_a_row_for_each_target() -> None:
    figures = (REPO / "docs/fuzzing.md").read_text().partition("<!-- python: begin -->")[2].partition("<!-- python: end -->")[0]
    assert [t for t in SIZES if f"| `{t}` |" not in figures] == []
