"""The page of figures is what the last runs say, and nothing else."""
from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "benchmarks"))

import performance  # noqa: E402
import results  # noqa: E402


def _result(**fields: object) -> results.Result:
    table = results.Table("Of one run.", ["program", "ratio"], [["lua | repl", 1.0234], ["xz", 123.4]])
    values: dict[str, object] = {"name": "cost", "title": "Cost", "about": "What it costs.", "tables": [table],
                                 "targets": [results.Target("worst", "≤ 1.06", "1.08", False)],
                                 "notes": ["One was left out."], "command": "python benchmarks/cost.py --rounds 3", **fields}
    return results.Result(**values)    # type: ignore[arg-type]


def test_the_page_is_what_the_results_say() -> None:
    assert performance.PAGE.read_text() == performance.page(performance.read_all()), "python benchmarks/performance.py"


def test_a_missed_target_is_shown_as_missed() -> None:
    page = performance.page([_result()])
    assert "| worst | ≤ 1.06 | 1.08 | **missed** |" in page
    assert "| met |" not in page


def test_figures_commands_and_notes_reach_the_page() -> None:
    page = performance.page([_result()])
    assert "\n    python benchmarks/cost.py --rounds 3\n" in page
    assert "\n| program | ratio |\n|---|---|\n| lua \\| repl | 1.02 |\n| xz | 123 |\n" in page
    assert "\n- One was left out.\n" in page


def test_a_written_result_is_read_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    result = _result(raw={"lua": [1.0, 2.5]})
    assert results.read(result.write()) == result


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"tables": [{}], "targets": []}', '{"tables": [], "targets": [], "x": 1}'])
def test_what_is_no_result_is_an_error_with_its_path(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(damage)
    with pytest.raises(ValueError, match=r"broken\.json is not a result"):
        results.read(path)


def test_results_in_the_tree_name_command_machine_and_commit() -> None:
    for path in results.FOLDER.glob("*.json"):
        fields = json.loads(path.read_text())
        assert fields["command"].startswith("python benchmarks/"), path
        assert "Linux" in fields["machine"] and len(fields["commit"]) >= 7, path
