"""The regression check says what it measured: slower beyond the limit is found, noise is not."""
from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import regression
import results

BENCHMARK = Path(regression.__file__)


def rounds(middle: float, spread: float, seed: int) -> list[float]:
    draw = random.Random(seed)
    return [middle * draw.uniform(1 - spread, 1 + spread) for _ in range(9)]


@pytest.mark.parametrize(("other", "spread", "worse"), [(1.0, 0.05, False), (1.3, 0.05, True), (0.5, 0.05, False),
                                                        (1.05, 0.02, False), (1.12, 0.3, False)])
def test_only_what_is_beyond_limit_and_noise_is_a_regression(other, spread, worse):
    [verdict] = regression.judge({"build": rounds(10.0, spread, 1)}, {"build": rounds(10.0 * other, spread, 2)}, 1.10)
    assert verdict.worse == worse and ("REGRESSION" in verdict.line()) == worse
    assert verdict.low <= verdict.ratio <= verdict.high


def test_rounds_that_were_slow_for_both_are_no_difference():
    base = [1.0, 9.0, 1.1, 5.0, 1.0, 7.0, 1.2]
    [verdict] = regression.judge({"live": base}, {"live": [2 * v for v in base]}, 1.10)
    assert (verdict.ratio, verdict.low, verdict.high) == (2.0, 2.0, 2.0)


def test_a_commit_that_there_is_not_is_an_error(tmp_path):
    done = subprocess.run([sys.executable, str(BENCHMARK), "no-such-commit"], cwd=tmp_path, capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode not in (0,) and "no-such-commit" in done.stderr


@pytest.mark.skipif(not (results.REPO / ".git").exists(), reason="this is no checkout")
@pytest.mark.timeout(900)
def test_two_commits_are_measured(full_size, tmp_path):
    size = ["--objects", "20", "--rounds", "3"] if full_size else ["--objects", "4", "--rounds", "1", "--measures", "patch"]
    argv = [sys.executable, str(BENCHMARK), "HEAD", *size, "--limit", "5", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads((tmp_path / "found.json").read_text())
    wanted = {"build", "patch", "live"} if full_size else {"patch"}
    assert measured["base"].keys() == measured["other"].keys() == wanted and done.stdout.count(" ok\n") == len(wanted)
