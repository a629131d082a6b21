"""What is said of a crash: the report is written before the signal takes its course, and read before that too."""
from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from hotreload_tool import guard
from hotreload_tool.report import Document


def report(**more: object) -> Document:
    return {"state": "fired", "begun_ms": 1000, "ends_ms": int(1000 * time.time()) + 60_000, "signal": "SIGSEGV", "tid": 1,
            "thread": "busy", "certain": True, "reverted": True, "resumed": False,
            "images": [{"build_id": "ab", "generation": 1, "before": 0}], **more}


@pytest.fixture
def living() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its standard input is closed."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


def crash_of(pid: int) -> guard.Crashed:
    with pytest.raises(guard.Crashed) as caught:
        guard.wait(pid, 1.0, {})
    return caught.value


def test_a_process_that_ends_only_after_its_report(living: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: int) -> Document:
        if reads:                      # the first look finds the guard; by the last one, the process is about to end
            assert living.stdin and living.poll() is None
            living.stdin.close()
        reads.append(1)
        return report(state="fired" if len(reads) > 1 else "armed")

    reads: list[int] = []
    monkeypatch.setattr(guard, "read", read)
    crash = crash_of(living.pid)
    assert len(reads) == 2
    assert crash.became == "it is gone"
    assert crash.detail.endswith("then the signal took its course, and the process ended")


def test_a_process_that_lives_on(living: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_COURSE", 0.01)
    monkeypatch.setattr(guard, "read", lambda _: report())
    crash = crash_of(living.pid)
    assert (crash.became, living.poll()) == ("it was taken back", None)
    assert crash.detail.endswith("then the signal took its course")
    monkeypatch.setattr(guard, "read", lambda _: report(resumed=True))
    assert crash_of(living.pid).detail.endswith("the thread went on at its recovery safepoint")
