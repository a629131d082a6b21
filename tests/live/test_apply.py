"""`hotpatch apply` on running processes: what takes a bundle, what doesn't, and that those stay as they were."""
from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotreload_tool import bundle, process
from livetools import DAMAGED, DEADLINE, NO_PROCESS, REPO, USAGE, Program, Workspace, workspace

OLD, NEW, NEWER = "letters so far", "letters in all", "letters altogether"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Workspace]:
    """The plugin example, built."""
    with workspace(REPO / "examples/plugin", tmp_path / "plugin") as work:
        work.scons()
        yield work


@pytest.fixture
def host(project: Workspace) -> Iterator[Program]:
    """A host that has answered one line."""
    with project.start(["build/host"]) as program:
        program.expect("plugin loaded\n")
        program.ask("a", rf"^line 1: 1 characters, 1 {OLD}\n")
        yield program


def make_bundle(project: Workspace, old: str = OLD, new: str = NEW) -> Path:
    """Edit the plugin; the bundle of that edit, applied to nobody."""
    project.edit("src/plugin.c", old, new)
    before = set(project.path.rglob("*.hotpatch"))
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    made = set(project.path.rglob("*.hotpatch")) - before
    assert len(made) == 1, made
    return made.pop()


def expect_untouched(project: Workspace, host: Program) -> None:
    host.ask("a", rf"{OLD}\n", reject=f"{NEW}|{NEWER}")
    assert [image["generation"] for image in project.status(host)["images"]] == [0, 0]


def test_a_bundle_is_shown_tried_and_applied(project: Workspace, host: Program) -> None:
    made = make_bundle(project)
    entry = project.hotpatch("inspect", made, "--json").json()["images"][0]
    assert [f["name"] for f in entry["changed"]] == ["plugin_answer"]
    tried = project.hotpatch("apply", made, "--pid", str(host.pid), "--dry-run", "--json").json()
    assert tried["dry_run"]
    expect_untouched(project, host)

    applied = project.hotpatch("apply", made, "--pid", str(host.pid), "--json").json()
    told = {k: applied[k] for k in ("pid", "build_id", "generation", "functions_changed", "functions_live")}
    assert told == {"pid": host.pid, "build_id": entry["build_id"], "generation": 1, "functions_changed": 1,
                    "functions_live": 1}
    host.ask("a", rf"^line 3: 1 characters, 3 {NEW}\n", reject=OLD)

    again = project.hotpatch("apply", made, "--pid", str(host.pid))
    assert "already" in again.out
    host.ask("a", rf"^line 4: 1 characters, 4 {NEW}\n", reject=OLD)


def test_the_only_process_is_found(project: Workspace, host: Program) -> None:
    project.hotpatch("apply", make_bundle(project))
    host.ask("a", NEW, reject=OLD)


def test_several_processes_are_patched_only_when_asked_for(project: Workspace, host: Program) -> None:
    made = make_bundle(project)
    with project.start(["build/host"]) as second:
        second.expect("plugin loaded\n")
        refused = project.hotpatch("apply", made, code=USAGE)
        assert str(host.pid) in refused.err and str(second.pid) in refused.err
        expect_untouched(project, host)
        outcomes = project.hotpatch("apply", made, "--all", "--json").json()["outcomes"]
        assert {o["pid"] for o in outcomes} == {host.pid, second.pid}
        host.ask("a", NEW, reject=OLD)
        second.ask("a", NEW, reject=OLD)


def test_ps_shows_who_can_be_patched(project: Workspace, host: Program) -> None:
    listed = project.hotpatch("ps", "--json").json()["processes"]
    assert [p["pid"] for p in listed] == [host.pid]
    assert {Path(i["path"]).name for i in listed[0]["images"]} == {"host", "libplugin.so"}
    assert host.finish() == 0
    assert project.hotpatch("ps", "--json").json()["processes"] == []


def test_out_of_order(project: Workspace, host: Program) -> None:
    first = make_bundle(project)
    second = make_bundle(project, NEW, NEWER)
    out = project.hotpatch("apply", second, "--pid", str(host.pid), code=DAMAGED)
    assert "does not follow the generation that is live" in out.err
    expect_untouched(project, host)
    project.hotpatch("apply", first)
    project.hotpatch("apply", second)
    host.ask("a", NEWER, reject=f"{OLD}|{NEW}")


def test_for_another_build(project: Workspace, host: Program) -> None:
    project.edit("src/plugin.c", "line %ld:", "row %ld:")
    project.scons()
    made = make_bundle(project)
    before = project.status(host)["images"]
    with project.start(["build/host"]) as other:
        other.expect("plugin loaded\n")
        project.hotpatch("apply", made, "--pid", str(other.pid))
        other.ask("a", rf"^row 1: 1 characters, 1 {NEW}\n")
        ids = {i["build_id"] for i in project.status(other)["images"]} - {i["build_id"] for i in before}
        assert ids, "the second build has the build-id of the first"
        refused = project.hotpatch("apply", made, "--pid", str(host.pid), code=DAMAGED)
        assert next(iter(ids)) in refused.err
    expect_untouched(project, host)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged(project: Workspace, host: Program, damage: str) -> None:
    made = make_bundle(project)
    data = bytearray(made.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0x10
    copy = project.path / "copy.hotpatch"
    copy.write_bytes({"truncated": data[:-100], "flipped": data, "empty": b""}[damage])
    assert "copy.hotpatch" in project.hotpatch("apply", copy, "--pid", str(host.pid), code=DAMAGED).err
    assert "copy.hotpatch" in project.hotpatch("inspect", copy, code=DAMAGED).err
    expect_untouched(project, host)


def test_a_process_that_ended(project: Workspace, host: Program) -> None:
    made = make_bundle(project)
    assert host.finish() == 0
    project.hotpatch("apply", made, "--pid", str(host.pid), code=NO_PROCESS)
    project.hotpatch("status", str(host.pid), code=NO_PROCESS)
    project.hotpatch("apply", made, code=NO_PROCESS)


def test_a_process_without_an_agent(project: Workspace, host: Program) -> None:
    made = make_bundle(project)
    project.hotpatch("apply", made, "--pid", str(os.getpid()), code=NO_PROCESS)


def test_a_stopped_process_runs_into_the_deadline(project: Workspace, host: Program) -> None:
    made = make_bundle(project)
    with stopped(host):
        late = project.hotpatch("apply", made, "--pid", str(host.pid), "--timeout", "1", code=DEADLINE)
        assert "did not answer" in late.err
    expect_untouched(project, host)


def test_a_patch_whose_sender_gave_up_is_not_taken_later(project: Workspace, host: Program,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    payload = project.path / "payload.so"
    payload.write_bytes(bundle.read(make_bundle(project)).payloads[0])
    monkeypatch.setenv("HOTRELOAD_RUNTIME_DIR", project.env["HOTRELOAD_RUNTIME_DIR"])
    with stopped(host), pytest.raises(process.NoAnswer):
        process.apply(host.pid, [payload], timeout=1.0)
    expect_untouched(project, host)
    assert process.apply(host.pid, [payload]).images[0].functions_live == 1
    host.ask("a", NEW, reject=OLD)


@contextlib.contextmanager
def stopped(program: Program) -> Iterator[None]:
    os.kill(program.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)     # all its threads are
    try:
        yield
    finally:
        os.kill(program.pid, signal.SIGCONT)
