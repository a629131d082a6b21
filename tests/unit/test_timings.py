"""timings.py: spans add up, and cost nothing where nobody asked."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotreload_tool import timings


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What the time is: set it."""
    now = [0.0]
    monkeypatch.setattr(timings.time, "perf_counter", lambda: now[0])
    yield now
    timings.stop()


def test_a_span_within_another_counts_for_itself(clock: list[float]) -> None:
    found = timings.start()
    with timings.span("scons"):
        clock[0] += 0.002
        with timings.span("compile"):
            clock[0] += 0.040
            with timings.span("instrument"):
                clock[0] += 0.003
        with timings.span("compile"):
            clock[0] += 0.010
    clock[0] += 0.005
    assert {name: round(s, 6) for name, s in found.seconds.items()} == {"instrument": 0.003, "compile": 0.05, "scons": 0.002}
    assert found.text() == "instrument 3.0, compile 50.0, scons 2.0, other 5.0; 60.0 ms in all"
    assert [path for path, _, _ in found.spans] == ["scons;compile;instrument", "scons;compile", "scons;compile", "scons"]


def test_a_span_that_fails_counts_too(clock: list[float]) -> None:
    found = timings.start()
    with pytest.raises(ValueError), timings.span("plan"):
        clock[0] += 0.001
        raise ValueError
    with timings.span("link"):
        clock[0] += 0.001
    assert list(found.seconds) == ["plan", "link"] and found.spans[1][0] == "link"


def test_nobody_asked(clock: list[float]) -> None:
    timings.stop()
    with timings.span("plan"):
        clock[0] += 1.0
    assert timings.start().spans == []


def test_a_file_takes_every_span(clock: list[float], tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    for _ in range(2):
        timings.start()
        with timings.span("link"):
            clock[0] += 0.004
        assert timings.report(str(path)).startswith("timings (ms): link 4.0")
    assert [json.loads(line)["spans"] for line in path.read_text().splitlines()] == [[["link", 0.0, pytest.approx(4.0)]]] * 2
    assert timings.report("1") == "timings (ms): link 4.0; 4.0 ms in all"
