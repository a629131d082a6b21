"""The command line against an agent that only talks: exit codes, `--json`, and what reaches the agent."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakeagent import Answer, FakeAgent, Request

from hotreload_tool import abi, bundle, cli
from hotreload_tool.objectmap import DataEntry, FunctionEntry, ObjectMap

DONE, REFUSED, USAGE, NO_PROCESS, DEADLINE, DAMAGED = range(6)
BUILD_ID = "ab" * 20
PAYLOAD = b"\x7fELF payload"
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runtime directory, and a place for payload files."""
    path = tmp_path_factory.mktemp("run")
    path.chmod(0o700)
    monkeypatch.setenv("HOTRELOAD_RUNTIME_DIR", str(path))
    monkeypatch.setenv("HOTRELOAD_DIR", str(path / "state"))
    return path


def status(build_id: str = BUILD_ID, generation: int = 0) -> dict[str, Any]:
    image = {"build_id": build_id, "path": "/x/game", "kind": "pie", "load_bias": 0x1000,
             "arena": {"address": 0x10000, "size": 0x100000, "used_end": 0x12000, "mapped": 0}, "reverted": [], "unmapped": 0,
             "generation": generation, "id": "0" * 64, "payloads": []}
    return {"abi": abi.ABI, "pid": os.getpid(), "mode": "thread", "executable": "/x/game", "images": [image]}


def talk(build_id: str = BUILD_ID, code: str = "OK", **said: Any) -> Answer:
    """An agent with one image: answers status, and apply with `code` and `said`."""
    def answer(request: Request) -> tuple[str, dict[str, Any]]:
        if request.op == abi.Op.STATUS:
            return "OK", status(build_id)
        if code not in ("OK", "ALREADY"):
            return code, {"error": code, "message": abi.CODES[code].sentence, "detail": "game", **said}
        live = 0 if request.dry_run else 1
        image = {"build_id": build_id, "generation": 1, "already": code == "ALREADY", "functions_changed": 1,
                 "functions_live": live, "updates_applied": 0, "updates_kept": 0}
        return code, {"pid": os.getpid(), "dry_run": request.dry_run, "images": [image], "threads_stopped": 0,
                      "pause_us": 0, "commit_us": 3, "frames_in_old_code": None, **said}
    return answer


@pytest.fixture
def patch(tmp_path: Path) -> Path:
    """A bundle that changes `draw` of the image BUILD_ID."""
    function = FunctionEntry("draw", "draw", "global", 16, "0" * 32)
    data = DataEntry("n", "n", "global", "data", 4, 4, 36, "0" * 32)
    described = ObjectMap("build/a.o", functions=[function], data=[data])
    changed = {"name": "draw", "object": "build/a.o", "slot": 8, "old_body": 64, "old_size": 16, "body": 0x10000,
               "size": 16}
    entry = {"build_id": BUILD_ID, "kind": "pie", "generation": 1, "parent": "0" * 64, "arena": [0x10000, 0x11000],
             "changed": [changed], "added": [], "removed": [], "notes": [],
             "data": {"added": [], "updated": [], "bound": []}}
    made = bundle.build("build/game", [bundle.ImagePatch(entry, PAYLOAD, [described])],
                        created="2026-01-01T00:00:00Z", tool="0.1.0")
    path = tmp_path / "game.1.hotpatch"
    bundle.write(path, made)
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    try:
        code = cli.main([str(w) for w in words])
    except SystemExit as e:      # how argparse leaves
        code = e.code if isinstance(e.code, int) else 1
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def run_json(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    code, out, _ = run(capsys, *words, "--json")
    document = json.loads(out)
    assert isinstance(document, dict)
    return code, document


# ---- ps, status --------------------------------------------------------------------------------------------------


def test_ps_of_nobody(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "ps") == (DONE, "no running process of yours has an agent\n", "")
    assert run_json(capsys, "ps") == (DONE, {"processes": [], "silent": []})


def test_ps_lists_a_process(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeAgent(runtime, talk()):
        code, out, _ = run(capsys, "ps")
        assert code == DONE and f"{os.getpid()}" in out and "/x/game" in out and BUILD_ID[:12] in out
        code, document = run_json(capsys, "ps")
        assert code == DONE and [p["pid"] for p in document["processes"]] == [os.getpid()]


def test_status_is_the_agents_own(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeAgent(runtime, talk()):
        assert run_json(capsys, "status", os.getpid()) == (DONE, status())
        code, out, _ = run(capsys, "status", os.getpid())
        assert code == DONE and "as it was built" in out and "8 KiB of 1 MiB used" in out


def test_status_without_an_agent(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "status", os.getpid())
    assert (code, out) == (NO_PROCESS, "") and str(os.getpid()) in err
    code, document = run_json(capsys, "status", os.getpid())
    assert code == NO_PROCESS == document["exit_code"]


def test_status_of_a_process_that_ended(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert run(capsys, "status", child.pid)[0] == NO_PROCESS


# ---- apply -------------------------------------------------------------------------------------------------------


def test_apply_sends_the_payload(runtime: Path, patch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeAgent(runtime, talk()) as agent:
        code, out, err = run(capsys, "apply", patch, "--pid", os.getpid())
    assert (code, err) == (DONE, "")
    assert f"build/game (pid {os.getpid()}): 1 function changed, 1 live, generation 1\n  changed: draw\n" in out
    request = agent.requests[-1]
    assert (request.op, request.dry_run, request.when) == (abi.Op.APPLY, False, abi.When.QUIESCENT)
    assert request.payloads == [PAYLOAD]


def test_apply_json_has_the_promised_fields(runtime: Path, patch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeAgent(runtime, talk()):
        code, document = run_json(capsys, "apply", patch, "--pid", os.getpid())
    promised = {"pid": os.getpid(), "build_id": BUILD_ID, "generation": 1, "functions_changed": 1, "functions_live": 1,
                "frames_in_old_code": None, "threads_stopped": 0, "pause_us": 0}
    assert code == DONE and {k: document[k] for k in promised} == promised


@pytest.mark.parametrize("which", [[], ["--all"]], ids=["the-only-one", "all"])
def test_apply_finds_the_process(runtime: Path, patch: Path, which: list[str],
                                 capsys: pytest.CaptureFixture[str]) -> None:
    with FakeAgent(runtime, talk()):
        code, document = run_json(capsys, "apply", patch, *which)
    assert code == DONE and [o["pid"] for o in document["outcomes"]] == [os.getpid()]


def test_payload_files_are_read_only_and_named_by_content(runtime: Path, patch: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    with FakeAgent(runtime, talk()):
        run(capsys, "apply", patch)
        run(capsys, "apply", patch)
    entry = bundle.read(patch).manifest["images"][0]
    files = list((runtime / "state/payloads").iterdir())
    assert [f.name for f in files] == [f"{entry['payload']['sha256']}.so"]
    assert files[0].stat().st_mode & 0o777 == 0o444


def test_dry_run_reaches_the_agent(runtime: Path, patch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeAgent(runtime, talk()) as agent:
        code, out, _ = run(capsys, "apply", patch, "--dry-run")
    assert code == DONE and "would take generation 1" in out
    assert agent.requests[-1].dry_run


@pytest.mark.parametrize(("when", "sent"), [("quiescent", abi.When.QUIESCENT), ("safepoint", abi.When.SAFEPOINT)])
def test_when_reaches_the_agent(runtime: Path, patch: Path, when: str, sent: abi.When,
                                capsys: pytest.CaptureFixture[str]) -> None:
    with FakeAgent(runtime, talk(code="UNSUPPORTED")) as agent:
        code, out, err = run(capsys, "apply", patch, "--when", when)
    assert (code, out) == (REFUSED, "") and "nothing changed in this process" in err
    assert agent.requests[-1].when == sent


@pytest.mark.parametrize("name", [n for n, c in abi.CODES.items() if c.exit_code])
def test_each_answer_of_the_agent_gives_its_exit_code(runtime: Path, patch: Path, name: str,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    with FakeAgent(runtime, talk(code=name)):
        code, document = run_json(capsys, "apply", patch, "--pid", os.getpid())
    assert code == abi.CODES[name].exit_code
    assert document["failures"][0]["error"] == name and document["outcomes"] == []


def test_functions_that_are_not_live_fail_the_command(runtime: Path, patch: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    image = {"build_id": BUILD_ID, "generation": 1, "already": False, "functions_changed": 1, "functions_live": 0,
             "updates_applied": 0, "updates_kept": 0}
    with FakeAgent(runtime, talk(images=[image])):
        code, _, err = run(capsys, "apply", patch)
    assert code == REFUSED and "only 0 read back as live" in err


def test_a_process_that_does_not_run_the_image(runtime: Path, patch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeAgent(runtime, talk(build_id="cd" * 20)) as agent:
        code, _, err = run(capsys, "apply", patch, "--pid", os.getpid())
        assert code == DAMAGED and BUILD_ID in err
        assert run(capsys, "apply", patch)[0] == NO_PROCESS
    assert all(r.op == abi.Op.STATUS for r in agent.requests)


def test_nobody_to_apply_to(runtime: Path, patch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "apply", patch)[0] == NO_PROCESS
    code, document = run_json(capsys, "apply", patch, "--pid", os.getpid())
    assert code == NO_PROCESS == document["failures"][0]["exit_code"]


def test_a_truncated_bundle(runtime: Path, patch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patch.write_bytes(patch.read_bytes()[:-40])
    with FakeAgent(runtime, talk()) as agent:
        for verb in (["apply", patch], ["inspect", patch]):
            code, document = run_json(capsys, *verb)
            assert code == DAMAGED == document["exit_code"]
    assert not agent.requests, "a damaged bundle is found out before any process is asked"


# ---- inspect, diff -----------------------------------------------------------------------------------------------


def test_inspect(patch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = run_json(capsys, "inspect", patch)
    assert code == DONE and document == bundle.read(patch).manifest
    code, out, _ = run(capsys, "inspect", patch)
    assert code == DONE and "changed: draw" in out


OLD = """static int n;
static __attribute__((noinline)) int add(int a) { return n += a; }
int twice(int a) { return add(a) * 2; }
"""


def compile_object(path: Path, text: str) -> Path:
    compiler = shutil.which("gcc")
    if not compiler:
        pytest.skip("no gcc")
    path.with_suffix(".c").write_text(text)
    flags = ["-O2", "-ffunction-sections", "-fdata-sections"]
    subprocess.run([compiler, *flags, "-c", path.with_suffix(".c"), "-o", path],
                   check=True, timeout=60)
    return path


@pytest.mark.parametrize(("was", "now", "expected"), [
    ("", "", {}),
    ("n += a;", "n -= a;", {"changed": ["add"]}),
    ("int twice", "int more;\nint once(void) { return more; }\nint twice", {"added": ["once"], "data": ["more"]}),
    ("int twice(int a) { return add(a) * 2; }", "int first(int a) { return add(a); }",
     {"added": ["first"], "removed": ["twice"]}),
], ids=["nothing", "changed", "added", "renamed"])
def test_diff_of_objects_under_different_names(tmp_path: Path, was: str, now: str, expected: dict[str, list[str]],
                                               capsys: pytest.CaptureFixture[str]) -> None:
    old, new = compile_object(tmp_path / "old.o", OLD), compile_object(tmp_path / "new.o", OLD.replace(was, now, 1))
    code, document = run_json(capsys, "diff", old, new)
    assert code == DONE
    assert document == {"changed": [], "added": [], "removed": [], "data": [], **expected}


def test_diff_of_instrumented_and_plain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hotreload_tool import instrument
    old, new = compile_object(tmp_path / "old.o", OLD), compile_object(tmp_path / "new.o", OLD.replace("* 2", "* 3"))
    instrument.instrument_file(old, object_name="build/src/x.o")
    code, document = run_json(capsys, "diff", old, new)
    assert code == DONE
    assert document == {"changed": ["twice"], "added": [], "removed": [], "data": []}


def test_diff_of_what_is_no_elf_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.o").write_text("hello")
    code, out, err = run(capsys, "diff", tmp_path / "a.o", tmp_path / "a.o")
    assert (code, out) == (DAMAGED, "") and "a.o" in err


def test_diff_of_an_object_and_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "diff", compile_object(tmp_path / "a.o", OLD), sys.executable)
    assert code == USAGE and "two of a kind" in err


def test_diff_of_images_without_maps(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "diff", "/bin/true", "/bin/true")
    assert code == REFUSED and "no object map" in err


# ---- usage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [
    [], ["dance"], ["status"], ["status", "me"], ["inspect", "/nonexistent"], ["inspect", "/"], ["diff", "/bin/true"],
    ["apply", "/bin/true", "--when", "later"], ["apply", "/bin/true", "--pid", "1", "--all"],
    ["apply", "/bin/true", "--timeout", "0"], ["apply", "/bin/true", "--timeout", "nan"],
], ids=" ".join)
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (USAGE, "") and "usage: hotpatch" in err


def test_usage_errors_are_a_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = run_json(capsys, "status", "me")
    assert code == USAGE == document["exit_code"] and "me" in document["message"]


def test_all_verbs_are_offered(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == DONE
    offered = {word.strip() for line in out.splitlines() for word in line.split()[:1]}
    assert {"ps", "status", "apply", "revert", "inspect", "diff", "verify", "keygen", "sign", "cc", "bundle",
            "watch"} <= offered


def test_ps_starts_without_what_it_does_not_need(runtime: Path) -> None:
    code = ("import sys; from hotreload_tool.cli import main; main(['ps']); "
            "print(sorted({'rich', 'lief', 'elftools', 'capstone', 'SCons', 'jsonschema'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True,
                          timeout=60, cwd=REPO)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_runs_the_command_line(runtime: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "hotreload_tool", "ps", "--json"], check=True, capture_output=True,
                          text=True, timeout=60, cwd=REPO)
    assert json.loads(done.stdout) == {"processes": [], "silent": []}
