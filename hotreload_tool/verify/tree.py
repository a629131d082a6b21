"""`scons hotpatch-verify`: every bundle of a tree, from scratch. What the sources have that is in no bundle yet becomes one
first; an edit that is refused is a result with its source line."""
from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import hotpatch, report
from ..baseline import Store
from ..errors import Refusal, Refused
from ..request import HotpatchRequest
from . import Given, outputs, sources, verify
from .verdict import Verdict


@dataclass
class _Edits:
    """What became of the edits that were in no bundle yet."""
    results: list[report.Result] = field(default_factory=list)
    refusals: list[tuple[str, Refusal, str, int]] = field(default_factory=list)     # program, reason, source, line


def run(request: HotpatchRequest, junit: Path, sarif: Path, against: Sequence[Path] = ()) -> int:
    """Verify all; returns the exit code: 0, or 1 if a bundle is unsound or could not be checked, or an edit is refused.
    `against`: images of the new source, for the newest bundle of each. Raises OSError."""
    edits = _make_bundles(request)
    verdicts = list(_verdicts(Path(request.directory), against))
    outputs.write(junit, outputs.junit(verdicts, [(program, refusal) for program, refusal, _, _ in edits.refusals]))
    outputs.write(sarif, outputs.sarif(verdicts, [(refusal, source, line) for _, refusal, source, line in edits.refusals]))
    for result in edits.results:
        report.show(report.Result({}, [], result.problems), as_json=False)
    for verdict in verdicts:
        lines = [] if request.silent else outputs.lines(verdict)
        report.show(report.Result({}, lines, outputs.problem_lines(verdict)), as_json=False)
    if not verdicts and not edits.results and not request.silent:
        report.show(report.Result({}, [report.Line("no bundle to verify", "bold")]), as_json=False)
    sys.stdout.flush()
    failed = any(not v.sound or v.of("unchecked") for v in verdicts)
    return 1 if failed or any(r.exit_code for r in edits.results) else 0


def _make_bundles(request: HotpatchRequest) -> _Edits:
    store, edits = Store(request.directory), _Edits()
    attempts: dict[str, hotpatch.Attempt] = {}
    for image in request.images:
        edits.results += hotpatch.attempt_image(store, image, hotpatch.Running(), attempts)
    for attempt in attempts.values():
        if isinstance(attempt.error, Refused):
            paths = {o.name: Path(o.path) for o in attempt.image.objects}
            edits.refusals += [(attempt.image.name, r, *sources.locate(r, paths.get(r.object), Path(request.top)))
                               for r in attempt.error.refusals]
    return edits


def _verdicts(directory: Path, against: Sequence[Path]) -> Iterator[Verdict]:
    for chain in sorted(directory.glob("chains/*")):
        bundles = sorted(chain.glob("*.hotpatch"), key=lambda p: int(p.name.split(".")[-2]))
        image = directory / "baselines" / chain.name / "image"
        for bundle in bundles:
            newest = against if bundle == bundles[-1] else ()
            yield verify(bundle, Given([image] if image.exists() else [], [b for b in bundles if b != bundle], newest))
