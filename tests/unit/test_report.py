"""What people are told: true, short, and the same facts as `--json`."""
from __future__ import annotations

import io
import json
import shutil
from typing import Any

import pytest

from hotreload_tool import abi, process, report, together
from hotreload_tool.errors import Damaged, HotreloadError, Refusal, Refused

BUILD_ID = "ab" * 20
PID = 4711


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def image(**changes: Any) -> dict[str, Any]:
    """One image of a manifest: a patch of `draw` and of file-local `count`."""
    entry = {"name": "draw", "object": "build/a.o", "slot": 1, "old_body": 2, "old_size": 3, "body": 4, "size": 5}
    return {"build_id": BUILD_ID, "kind": "pie", "generation": 2, "id": "1" * 64, "parent": "2" * 64,
            "payload": {"file": "payload-0.so", "sha256": "3" * 64, "size": 12345},
            "maps": {"file": "maps-0.json", "sha256": "4" * 64}, "arena": [0x10000, 0x14000],
            "changed": [entry, {**entry, "name": "count~build/a.o"}], "added": [], "removed": [],
            "data": {"added": [], "updated": [], "bound": []}, "notes": [], **changes}


def answer(live: int = 2, **changes: Any) -> dict[str, Any]:
    """An agent's answer to that patch."""
    taken = {"build_id": BUILD_ID, "generation": 2, "functions_changed": 2, "functions_live": live,
             "updates_applied": 0, "updates_kept": 0}
    return {"pid": PID, "dry_run": False, "images": [taken], "threads_stopped": 0, "pause_us": 0, "commit_us": 7,
            "frames_in_old_code": None, **changes}


def outcome(manifest: dict[str, Any] | None = None, said: dict[str, Any] | None = None) -> dict[str, Any]:
    return report.image_outcome(PID, manifest or image(), said or answer(), 0.0123)


def text(lines: list[report.Line]) -> str:
    return "\n".join(line.text for line in lines)


def test_apply_names_what_is_live() -> None:
    result = report.applied("build/game", [outcome()])
    assert result.exit_code == 0 and not result.problems
    assert text(result.lines).splitlines() == [
        "build/game (pid 4711): 2 functions changed, 2 live, generation 2",
        "  changed: draw, count (a.o)",
        "  old code: calls that were under way finish in it (stacks were not examined)",
        "  took 12.3 ms; no thread was stopped",
    ]


def test_apply_document_has_the_promised_fields() -> None:
    document = report.applied("build/game", [outcome()]).document
    promised = {"pid": PID, "build_id": BUILD_ID, "generation": 2, "functions_changed": 2, "functions_live": 2,
                "frames_in_old_code": None, "threads_stopped": 0, "pause_us": 0}
    assert {k: document[k] for k in promised} == promised
    assert {k: document["outcomes"][0][k] for k in promised} == promised
    assert document["failures"] == []


def test_a_function_that_is_not_live_is_a_failure() -> None:
    result = report.applied("build/game", [outcome(said=answer(live=1))])
    assert result.exit_code == 1
    assert "2 functions changed, but only 1 read back as live" in text(result.problems)


def test_an_answer_without_a_count_is_not_taken_for_success() -> None:
    result = report.applied("build/game", [outcome(said=answer() | {"images": []})])
    assert result.exit_code == 1
    assert "did not say what is live" in text(result.problems)


def test_what_was_kept_and_what_is_new_is_said() -> None:
    said = answer()
    said["images"][0].update(updates_applied=3, updates_kept=1)
    data = {"added": [{"name": "sparks"}], "updated": [{"name": "speed"}], "bound": []}
    manifest = image(data=data, added=[{"name": "shade"}], removed=[{"name": "blur"}], notes=["one more thing"])
    shown = text(report.applied("build/game", [outcome(manifest, said)]).lines)
    for line in ("new: shade", "no longer called: blur", "new data: sparks", "one more thing",
                 "data with new content: speed; 3 places took it", "kept: 1 place no longer held the old initialiser"):
        assert line in shown


def test_stopped_threads_and_old_frames_are_said() -> None:
    said = answer(threads_stopped=4, pause_us=1250, frames_in_old_code=2)
    shown = text(report.applied("build/game", [outcome(said=said)]).lines)
    assert "4 threads stopped for 1.2 ms" in shown
    assert "2 calls still under way" in shown
    assert "not examined" not in shown


def test_pages_that_stayed_writable_are_said() -> None:
    assert "read-only" not in text(report.applied("build/game", [outcome()]).lines)
    shown = report.applied("build/game", [outcome(said=answer(protections_restored=False))])
    assert "could not be made read-only again" in text(shown.lines)
    assert shown.exit_code == 0 and not shown.document["protections_restored"]


def test_a_lost_answer_is_said() -> None:
    result = report.applied("build/game", [outcome(said=answer(answer_lost=True))])
    assert "is at generation 2, 2 of 2 functions live; its answer was lost" in text(result.lines)
    assert result.exit_code == 0 and result.document["answer_lost"]


def test_nothing_changed_is_not_said_of_a_process_that_may_have_changed() -> None:
    error = process.NoAnswer(PID, 10)
    assert "nothing changed in this process" in text(report.applied("build/game", [], [(PID, error)]).problems)
    error.unknown = True
    result = report.applied("build/game", [], [(PID, error)])
    assert "not known whether this process changed" in text(result.problems)
    assert "nothing changed in this process" not in text(result.problems)
    assert result.document["failures"][0]["unknown"] is True and result.exit_code == 4


def test_an_empty_patch_changed_nothing() -> None:
    result = report.applied("build/game", [outcome(image(changed=[]), answer(live=0))])
    assert text(result.lines) == "build/game (pid 4711): nothing changed"
    assert result.exit_code == 0


def test_a_dry_run_does_not_claim_that_anything_is_live() -> None:
    result = report.applied("build/game", [outcome(said=answer(live=0, dry_run=True))])
    assert result.exit_code == 0
    assert "would take generation 2" in text(result.lines)
    assert " live" not in text(result.lines)


def test_a_failure_in_one_of_two_processes_fails_the_whole() -> None:
    error = HotreloadError("no such process")
    error.exit_code = 3
    result = report.applied("build/game", [outcome()], [(99, error)])
    assert result.exit_code == 3
    assert "pid 99): nothing changed in this process" in text(result.problems)
    assert result.document["pid"] == PID
    assert result.document["failures"] == [{"pid": 99, "error": "HOTRELOADERROR", "message": "no such process",
                                            "exit_code": 3}]


def test_processes_that_stood_by_come_last_and_in_one_line() -> None:
    by = process.AgentError(abi.Code["ABANDONED_BY_OTHERS"], "another process could not")
    blocked = process.AgentError(abi.Code["ABANDONED_BY_OTHERS"], "another process could not", "thread 5 is in f",
                                 {"blocked": {"tid": 5}})
    late = process.AgentError(abi.Code["DEADLINE"], "the deadline passed")
    result = report.applied("build/game", [], [(1, by), (2, late), (3, blocked), (4, by)])
    assert result.exit_code == 4
    assert [f["pid"] for f in result.document["failures"]] == [2, 3, 1, 4]
    assert text(result.problems).splitlines()[-1] == (
        "build/game (pids 1, 4): left unchanged, since all of them are patched or none")
    assert "thread 5 is in f" in text(result.problems)


def test_one_that_takes_it_later_is_not_said_to_be_unchanged() -> None:
    result = report.applied("build/game", [outcome()], [(99, together.TakesItLater(99, 2.0))])
    assert result.exit_code == 4 and "takes it as soon as it runs on" in text(result.problems)
    assert "unchanged" not in text(result.problems) and "nothing changed" not in text(result.problems)


def test_a_revert_of_several() -> None:
    image_said = {"build_id": "ab", "generation": 0, "already": False, "functions_changed": 1, "functions_live": 1,
                  "updates_applied": 0, "updates_kept": 0}
    went = [report.reverted("build/game", 1, answer() | {"pid": pid, "images": [image_said]}, 0.1) for pid in (5, 6)]
    result = report.reverted_together("build/game", went, [])
    assert result.exit_code == 0 and [o["pid"] for o in result.document["outcomes"]] == [5, 6] and result.document["pid"] == 5
    late = process.AgentError(abi.Code["DEADLINE"], "the deadline passed")
    failed = report.reverted_together("build/game", [], [(5, late)])
    assert failed.exit_code == 4 and failed.document["message"] == "the deadline passed"


def test_when_nothing_succeeded_the_document_says_why_at_the_top() -> None:
    error = HotreloadError("no such process")
    error.exit_code = 3
    document = report.applied("build/game", [], [(99, error)]).document
    assert (document["pid"], document["exit_code"], document["message"]) == (99, 3, "no such process")


def test_every_refusal_is_told() -> None:
    refusals = [Refusal("data-size", "build/a.o", "table", "it shrank", "restart the program"),
                Refusal("tls", "", "", "new thread-local", "use a global")]
    result = report.failure(Refused(refusals))
    assert result.exit_code == 1
    assert text(result.problems).splitlines() == [
        "refused, nothing changed:", "  build/a.o: table: it shrank; restart the program",
        "  new thread-local; use a global"]
    assert result.document["refusals"][0]["code"] == "data-size"


def layout(name: str) -> Refusal:
    return Refusal("type-layout", "b.o", name, f"the layout of type {name} changed", "restart")


def test_templates_of_a_changed_type_are_counted_with_it() -> None:
    types = ["class std::unique_ptr<Dog, std::default_delete<Dog> >", "struct Dog", "struct Kennel<Dogma>",
             "struct std::default_delete<Dog>", "struct zoo::Dog"]
    result = report.failure(Refused([layout(t) for t in types]))
    assert text(result.problems).splitlines() == [
        "refused, nothing changed:",
        "  b.o: struct Dog: the layout of type struct Dog changed (and of 2 types made with it); restart",
        "  b.o: struct Kennel<Dogma>: the layout of type struct Kennel<Dogma> changed; restart",
        "  b.o: struct zoo::Dog: the layout of type struct zoo::Dog changed; restart"]
    assert len(result.document["refusals"]) == len(types)


def test_a_template_is_told_where_its_argument_did_not_change() -> None:
    shown = text(report.failure(Refused([layout("struct Box<Cat>"), layout("struct Shelf<Box<Cat> >")])).problems)
    assert "struct Box<Cat> changed (and of 1 type made with it)" in shown and "Shelf" not in shown


@pytest.mark.skipif(not shutil.which("c++filt"), reason="no c++filt")
def test_refused_names_are_readable() -> None:
    refusals = [Refusal("data-size", "b.o", "_ZTV3Dog", "it grew", "restart"),
                Refusal("signature", "b.o", "_ZL4walki~b.o", "it changed", "rename it")]
    assert text(report.failure(Refused(refusals)).problems).splitlines()[1:] == [
        "  b.o: vtable for Dog: it grew; restart", "  b.o: walk(int): it changed; rename it"]


def test_a_damaged_file_is_named() -> None:
    result = report.failure(Damaged("a.hotpatch", "manifest.json", "not JSON"))
    assert result.exit_code == 5
    assert text(result.problems) == "hotpatch: a.hotpatch: manifest.json: not JSON"


def test_a_full_disk_is_said_with_the_file_and_what_to_do() -> None:
    failed = report.failure(OSError(28, "No space left on device", "/x/game.1.hotpatch"))
    assert text(failed.problems) == "hotpatch: /x/game.1.hotpatch: No space left on device; make room there, and run this again"
    other = report.failure(OSError(13, "Permission denied", "/x/game"))
    assert (text(other.problems), other.exit_code) == ("hotpatch: /x/game: Permission denied", 1)


def test_ps_of_nothing_says_so() -> None:
    assert text(report.processes([]).lines) == "no running process of yours has an agent"


def test_ps_lists_each_image_and_who_did_not_answer() -> None:
    status = {"pid": PID, "executable": "/x/game", "mode": "thread", "images": [
        {"build_id": BUILD_ID, "path": "/x/game", "generation": 3},
        {"build_id": "cd" * 20, "path": "/x/libai.so", "generation": 0}]}
    result = report.processes([status], [{"pid": 5, "message": "no answer"}])
    assert text(result.lines).splitlines() == [
        "PID   GENERATION  BUILD-ID      PROGRAM",
        "4711  3           abababababab  /x/game",
        "4711  0           cdcdcdcdcdcd  /x/libai.so"]
    assert text(result.problems) == "pid 5: no answer"


def test_diff_of_equals_changed_nothing() -> None:
    nothing: dict[str, list[str]] = {"changed": [], "added": [], "removed": [], "data": []}
    assert text(report.differences(nothing).lines) == "nothing changed"
    assert text(report.differences(nothing | {"changed": ["draw"], "data": ["n"]}).lines) == "changed: draw\ndata: n"


def test_inspect_shows_the_payloads_place() -> None:
    manifest = {"format": 1, "tool": "0.1.0", "program": "build/game", "created": "2026-01-01T00:00:00Z",
                "images": [image()]}
    shown = text(report.bundle("game.2.hotpatch", manifest).lines)
    assert "game.2.hotpatch: build/game, made 2026-01-01T00:00:00Z by hotreload 0.1.0" in shown
    assert f"generation 2 of pie {BUILD_ID}, after generation 1" in shown
    assert "payload: 12.1 KiB at 0x10000..0x14000" in shown


@pytest.mark.parametrize(("microseconds", "shown"), [
    (0, "0 µs"), (999, "999 µs"), (1000, "1.0 ms"), (123456, "123.5 ms"), (2_500_000, "2.50 s")])
def test_durations(microseconds: float, shown: str) -> None:
    assert report.duration(microseconds) == shown


@pytest.mark.parametrize(("n", "shown"), [
    (1, "1 byte"), (1023, "1023 bytes"), (1024, "1 KiB"), (1536, "1.5 KiB"), (64 << 20, "64 MiB"), (3 << 30, "3 GiB")])
def test_sizes(n: int, shown: str) -> None:
    assert report.size(n) == shown


def test_long_lists_are_cut() -> None:
    assert report.names(f"f{i}" for i in range(10)) == "f0, f1, f2, f3, f4, f5, f6, f7 and 2 more"


def test_json_is_one_document_and_problems_go_elsewhere() -> None:
    out, err = io.StringIO(), io.StringIO()
    report.show(report.Result({"a": 1}, [report.Line("for people")], [report.Line("trouble")]), True, out, err)
    assert json.loads(out.getvalue()) == {"a": 1}
    assert err.getvalue() == "trouble\n"


def test_off_a_terminal_lines_are_plain() -> None:
    out, err = io.StringIO(), io.StringIO()
    report.show(report.Result({}, [report.Line("[bold]not markup[/bold]", "bold red")]), False, out, err)
    assert out.getvalue() == "[bold]not markup[/bold]\n"


def test_on_a_terminal_the_same_words_have_style(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    report.show(report.Result({}, [report.Line("[bold]not markup[/bold]", "bold red")]), False, out, io.StringIO())
    assert "[bold]not markup[/bold]" in out.getvalue()
    assert "\033[" in out.getvalue()
