"""Security patches that Debian carries, into running programs that were built by their own builds (replay.py).

By default the patches that packages.json calls small: one of a package of each kind of build. With
HOTRELOAD_TEST_SIZE=full all of them, as benchmarks/patches.py runs them for docs/real-patches.md.
"""
from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
from aptsource import Offline, Unavailable
from replay import Outcome, Package, Replay, packages, under_load

from livetools import REPO, LiveError

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]


@pytest.mark.parametrize("package", packages().values(), ids=lambda package: package.name)
def test_patches_of(package: Package, tmp_path: Path, full_size: bool) -> None:
    if not full_size and not package.small:
        pytest.skip("HOTRELOAD_TEST_SIZE=full replays the patches of this package")
    for command in package.needs:
        if not shutil.which(command):
            pytest.skip(f"{command} is not installed")
    try:
        outcomes = list(Replay(package, tmp_path).outcomes(None if full_size else package.small))
    except Offline as e:
        pytest.skip(str(e))
    except Unavailable as e:
        pytest.fail(str(e))
    assert outcomes and (full_size or len(outcomes) == len(package.small))
    for outcome in outcomes:
        check(package, outcome)


def check(package: Package, outcome: Outcome) -> None:
    """Small patches go in; others do, or are refused with a reason. What goes in is equal to the fresh build, in code and in
    what it answers, and no longer what it was where a question shows it."""
    assert outcome.applied or (outcome.reason and outcome.patch not in package.small), outcome
    if outcome.applied:
        assert outcome.equal and outcome.functions, outcome
        assert outcome.verified == "yes" or outcome.patch in package.unverified, outcome
        assert outcome.exposed or outcome.patch not in package.exposing, outcome


def test_what_packages_say_fits_together() -> None:
    for package in packages().values():
        assert package.load and package.questions and package.image in package.keep
        named = [*package.small, *package.exposing, *package.unverified]
        assert all(re.search(package.security, patch) for patch in named), package.name
        assert set(package.small) <= set(package.exposing), f"{package.name}: what is small must show"


class Changing:
    """Answers each question with how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self, question: str) -> str:
        self.asked += 1
        return str(self.asked)


def test_an_answer_that_changes_under_load_is_found() -> None:
    with pytest.raises(LiveError, match="before the patch"), under_load(Changing(), ["question"]):
        pass


def test_the_page_says_what_its_rows_say() -> None:
    """Rows of other packages stay when one is replayed again, and the summary counts all of them."""
    specification = importlib.util.spec_from_file_location("patches", REPO / "benchmarks/patches.py")
    assert specification and specification.loader
    patches = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(patches)
    applied = Outcome("cjson", "a.patch", 2, True, "now", "", "yes", True, True, 5.0, 1)
    refused = Outcome("lua5.4", "b.patch", reason="type-layout: T | U")
    before = f"above\n{patches.BEGIN}{patches.END}below\n"
    once = patches.page(before, [applied], ["cjson"])
    both = patches.page(once, [refused], ["lua5.4"])
    assert both == patches.page(both, [applied], ["cjson"]), "replaced by itself"
    assert "| cjson | a.patch | 2 | applied, now | yes | yes | yes | 5 µs |\n" in both
    assert both.index("| lua5.4 | b.patch |") < both.index("| cjson |"), "in the order of packages.json"
    assert "2 patches of 2 packages: 1 applied, 1 of them verified" in both
    assert both.startswith("above\n") and both.endswith("below\n")
    said = patches.PAGE.read_text()
    assert said == patches.page(said, [], []), "docs/real-patches.md: make its rows with benchmarks/patches.py --write"
