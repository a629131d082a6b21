"""Processes that do not say what they run are named, for old code runs on in them."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

from hotreload_tool import abi, hotpatch, process
from hotreload_tool.request import HotpatchRequest


def test_a_process_that_does_not_say_what_it_runs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def status(pid: int, seconds: float) -> process.ProcessStatus:
        raise process.AgentError(abi.Code["DEADLINE"], "the deadline passed", "it sorts")

    monkeypatch.setattr(process, "find", lambda: [process.AgentAddress(os.getpid(), tmp_path / "1.sock")])
    monkeypatch.setattr(process, "status", status)
    request = HotpatchRequest(str(tmp_path), str(tmp_path), [], apply=True, silent=False)
    results = hotpatch.patch_tree(hotpatch.Store(tmp_path), request, hotpatch.ask_processes())
    said = "\n".join(line.text for result in results for line in result.problems)
    assert f"process {os.getpid()} was left out" in said and "the deadline passed: it sorts" in said
