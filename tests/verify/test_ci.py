"""`scons hotpatch-verify`, and the examples for forges: their files are parsed, and the commands in them are run."""
from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from bundles import Broken

from livetools import Workspace, workspace

REPO = Path(__file__).resolve().parents[2]
CI = REPO / "examples" / "ci"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Workspace]:
    """The example's project as it was released, with its build's state, and one edit in its source."""
    with workspace(CI / "project", tmp_path / "project") as made:
        made.scons()
        made.edit("src/main.c", '"%d lines\\n"', '"%d lines so far\\n"')
        yield made


def commands(name: str) -> list[str]:
    """The commands of an example, in their order."""
    document: Any = yaml.safe_load((CI / name).read_text())
    if name == "gitlab.yml":
        job = document["hotpatch"]
        return [*job["before_script"], *job["script"]]
    return [step["run"] for step in document["jobs"]["verify"]["steps"] if "run" in step]


def suites(path: Path) -> list[ElementTree.Element]:
    return list(ElementTree.parse(path).getroot())


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_the_examples_commands_prove_a_patch(name: str, project: Workspace) -> None:
    ran = [shlex.split(c) for c in commands(name) if c.startswith("scons ")]
    assert [words[2] for words in ran] == ["hotpatch", "build/counter", "hotpatch-verify"]
    for words in ran:
        project.scons(*words[2:])
    suite, = suites(project.path / "verify.xml")
    cases = {case.get("name"): case for case in suite}
    assert {"archive", "redirect-slots", "completeness-different"} <= cases.keys()
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "0")
    assert json.loads((project.path / "verify.sarif").read_text())["runs"][0]["results"] == []


def test_the_examples_speak_of_files_that_are_written() -> None:
    github, gitlab = yaml.safe_load((CI / "github.yml").read_text()), yaml.safe_load((CI / "gitlab.yml").read_text())
    uploads = [step["with"] for step in github["jobs"]["verify"]["steps"] if "with" in step and "uses" in step]
    assert {"sarif_file": "verify.sarif"} in uploads
    assert gitlab["hotpatch"]["artifacts"]["reports"] == {"junit": "verify.xml"}
    for name in ("github.yml", "gitlab.yml"):
        assert "HOTPATCH_JUNIT=verify.xml HOTPATCH_SARIF=verify.sarif" in commands(name)[-1]


def test_a_refused_edit_is_annotated_at_its_line(project: Workspace) -> None:
    project.edit("src/main.c", "static int lines;", "static double lines;")
    project.edit("src/main.c", "%d lines so far", "%g lines so far")
    done = project.scons("hotpatch-verify", code=2)
    assert "refused" in done.text
    document = json.loads((project.path / ".hotreload/verify.sarif").read_text())
    results = [r for r in document["runs"][0]["results"] if r["ruleId"] == "refused-edit"]
    places = [r["locations"][0]["physicalLocation"] for r in results]
    line = (project.path / "src/main.c").read_text().splitlines().index("static double lines;") + 1
    assert {"artifactLocation": {"uri": "src/main.c"}, "region": {"startLine": line}} in places
    edits = next(s for s in suites(project.path / ".hotreload/verify.xml") if s.get("name") == "edits")
    assert int(edits.get("failures") or 0) == len(results) > 0


def test_an_unsound_bundle_fails_the_build(project: Workspace) -> None:
    project.scons("hotpatch-verify")
    bundle, = project.path.glob(".hotreload/chains/*/*.hotpatch")
    broken = Broken.of(bundle)
    broken.set_header(broken.header_of("PT_GNU_STACK"), flags=7)
    bundle.write_bytes(broken.data())
    done = project.scons("hotpatch-verify", code=2)
    assert "it asks for an executable stack" in done.text
    assert suites(project.path / ".hotreload/verify.xml")[0].get("failures") == "1"


def test_a_new_image_of_another_source_fails_the_build(project: Workspace) -> None:
    project.scons("hotpatch-verify")
    project.edit("src/main.c", "%d lines so far", "%d lines till now")
    project.scons("build/counter")
    done = project.scons("hotpatch-verify", "HOTPATCH_AGAINST=build/counter", code=2)
    assert "completeness-different" in done.text and "tell" in done.text
