"""`hotpatch verify`: exit codes, text, JSON, JUnit XML and SARIF."""
from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bundles import Broken, Made

from hotreload_tool import cli
from hotreload_tool.errors import Refusal
from hotreload_tool.verify import outputs
from hotreload_tool.verify.verdict import CHECKS, Verdict

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def unsound(made: Made, tmp_path: Path) -> Path:
    broken = Broken.of(made.bundles[0])
    broken.set_header(broken.header_of("PT_GNU_STACK"), flags=7)
    path = tmp_path / "unsound.hotpatch"
    path.write_bytes(broken.data())
    return path


def verify(*words: object) -> int:
    return cli.main(["verify", *map(str, words)])


def test_a_sound_bundle(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(made.bundles[0], "--image", made.image, "--strict") == 0
    out, err = capsys.readouterr()
    assert "sound; " in out and "NOT" not in out and not err


def test_earlier_generations_and_baselines_are_found(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """The second bundle lies in a store, beside the first one, and the store has the image."""
    assert verify(made.bundles[1], "--strict") == 0
    assert "not checked" not in capsys.readouterr().out


def test_an_unsound_bundle(made: Made, unsound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(unsound, "--image", made.image) == 5
    out, err = capsys.readouterr()
    assert "NOT SOUND" in out
    assert "payload-0.so: executable-stack: " in err and "it asks for an executable stack" in err


def test_what_is_no_bundle(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "noise.hotpatch"
    path.write_bytes(b"PK\x05\x06" + bytes(18))
    assert verify(path, "--json") == 5
    assert json.loads(capsys.readouterr().out)["failed"] == ["archive"]


def test_unchecked_is_said_and_strict_fails(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = tmp_path / "alone.hotpatch"
    alone.write_bytes(made.bundles[0].read_bytes())
    assert verify(alone, "--image", made.new[0]) == 0
    assert re.search(r"not checked: .*redirect-slots.*no image with build-id", capsys.readouterr().out)
    assert verify(alone, "--image", made.new[0], "--strict") == 1


def test_json(made: Made, unsound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(unsound, "--image", made.image, "--json") == 5
    document = json.loads(capsys.readouterr().out)
    assert document["sound"] is False and document["failed"] == ["executable-stack"] and document["unchecked"] == []
    outcome = next(o for o in document["outcomes"] if o["check"] == "executable-stack")
    assert outcome == {"check": "executable-stack", "subject": "payload-0.so", "status": "failed",
                       "says": CHECKS["executable-stack"], "problems": ["it asks for an executable stack"]}


def test_junit(made: Made, unsound: Path, tmp_path: Path) -> None:
    assert verify(unsound, "--image", made.new[0], "--junit", tmp_path / "out.xml") == 5
    root = ElementTree.parse(tmp_path / "out.xml").getroot()
    suite = root.find("testsuite")
    assert suite is not None and suite.get("name") == str(unsound)
    cases = {case.get("name"): case for case in suite}
    failure = cases["executable-stack"].find("failure")
    assert failure is not None and failure.get("message") == "it asks for an executable stack"
    assert cases["redirect-slots"].find("skipped") is not None and cases["tables"].find("failure") is None
    assert (suite.get("failures"), int(suite.get("tests") or 0)) == ("1", len(cases))
    assert int(suite.get("skipped") or 0) == sum(case.find("skipped") is not None for case in suite) > 0


def test_sarif(made: Made, unsound: Path, tmp_path: Path) -> None:
    assert verify(unsound, "--image", made.image, "--sarif", tmp_path / "out.sarif") == 5
    document = json.loads((tmp_path / "out.sarif").read_text())
    run, = document["runs"]
    assert document["version"] == "2.1.0"
    result, = run["results"]
    assert (result["ruleId"], result["level"]) == ("executable-stack", "error")
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == str(unsound)
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} > set(CHECKS)


def test_sarif_of_a_refused_edit_names_its_line() -> None:
    refusal = Refusal("data-size", "build/a.o", "table", "its size changed", "give it another name")
    run, = json.loads(outputs.sarif([], [(refusal, "src/a.c", 12)]))["runs"]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "src/a.c"}, "region": {"startLine": 12}}
    assert "its size changed; give it another name" in run["results"][0]["message"]["text"]


def test_names_that_xml_cannot_hold() -> None:
    verdict = Verdict("a\x00b")
    verdict.found("archive", "x\ud800", ["\x1b[31m & <tag>"])
    suite = ElementTree.fromstring(outputs.junit([verdict]).partition("\n")[2]).find("testsuite")
    assert suite is not None and suite.get("name") == "a\ufffdb"


def test_the_page_lists_every_check() -> None:
    page = (REPO / "docs/verify.md").read_text()
    assert [name for name in CHECKS if f"`{name}`" not in page] == []
