"""`hotpatch verify --live`: a bundle goes in and out under the program's own command."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from bundles import Made, case_of, make
from casetools import Configuration

from hotreload_tool import cli

SOURCE = """
#include "case.h"
NOINLINE int twice(int n) { return 2 * n; }
void answer(const char *line) { printf("%d\\n", twice(atoi(line))); }
"""
SECOND = SOURCE.replace("2 * n", "n + n + 0 * puts(\"\")")
CRASHES = SOURCE.replace("return 2 * n", "abort(); return n")
# Asks the program until it was patched and reverted often enough to have met both; every answer must be right.
ASKS = """
import subprocess, sys
program = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
for number in range(int(sys.argv[2])):
    program.stdin.write(f"{number}\\n")
    program.stdin.flush()
    answers = []
    while (line := program.stdout.readline()) != ".\\n":
        if not line:
            sys.exit(4)
        answers += line.split()
    if answers != [str(2 * number)]:
        sys.exit(3)
program.stdin.close()
sys.exit(program.wait())
"""


def verify(made: Made, folder: Path, capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, Any]:
    (folder / "asks.py").write_text(ASKS)
    words = command or (sys.executable, str(folder / "asks.py"), str(made.image), "30000")
    capsys.readouterr()
    code = cli.main(["verify", str(made.bundles[-1]), "--image", str(made.image), "--json", "--strict", "--live-seconds", "200",
                     "--live", "--", *words])
    return code, json.loads(capsys.readouterr().out)


def build(folder: Path, shared: Path, second: str) -> Made:
    return make(case_of(folder / "case", SOURCE, second), Configuration.parse("gcc -O2 pie"), folder / "build", shared)


def test_the_verdict_stays(tmp_path: Path, shared_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = verify(build(tmp_path, shared_folder, SECOND), tmp_path, capsys)
    live = {o["check"]: o for o in document["outcomes"] if o["check"].startswith("live-")}
    assert (code, live["live-verdict"]["status"], live["live-read-back"]["status"]) == (0, "passed", "passed"), live
    assert "applied " in live["live-verdict"]["notes"][0] and " applied 0 times" not in live["live-verdict"]["notes"][0]


def test_a_patch_that_breaks_the_program_is_found(tmp_path: Path, shared_folder: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    code, document = verify(build(tmp_path, shared_folder, CRASHES), tmp_path, capsys)
    assert code == 1 and "live-verdict" in document["failed"]


def test_a_command_that_starts_something_else_proves_nothing(tmp_path: Path, shared_folder: Path,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    code, document = verify(build(tmp_path, shared_folder, SECOND), tmp_path, capsys, "true")
    assert code == 1 and document["failed"] == [] and set(document["unchecked"]) == {"live-verdict", "live-read-back"}
