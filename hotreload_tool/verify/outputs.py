"""Verdicts for people and for machines: lines of text, JUnit XML, SARIF."""
from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .. import __version__, report
from ..bundle import write_atomically
from ..errors import Refusal
from .verdict import CHECKS, Outcome, Verdict

_SHOWN = 20             # problems of one check that people are shown; the other forms have all
_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
REFUSED = "refused-edit"
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")     # XML 1.0 §2.2


# ---- people -----------------------------------------------------------------------------------------------------


def lines(verdict: Verdict) -> list[report.Line]:
    """What was found sound, and what could not be looked at."""
    passed = verdict.of("passed")
    found = [report.Line(f"{verdict.bundle}: {'sound' if verdict.sound else 'NOT SOUND'}; "
                         f"{report.plural(len(passed), 'check')} passed", "bold green" if verdict.sound else "bold red")]
    for outcome in passed:
        found += [report.Line(f"  {note}") for note in outcome.notes]
    by_reason: dict[str, list[str]] = {}
    for outcome in verdict.of("unchecked"):
        by_reason.setdefault(outcome.why, []).append(outcome.check)
    found += [report.Line(f"  not checked: {', '.join(dict.fromkeys(checks))}: {why}", "yellow")
              for why, checks in by_reason.items()]
    return found


def problem_lines(verdict: Verdict) -> list[report.Line]:
    found = []
    for outcome in verdict.of("failed"):
        shown, more = outcome.problems[:_SHOWN], len(outcome.problems) - _SHOWN
        found.append(report.Line(f"{outcome.subject}: {outcome.check}: it does not hold that {CHECKS[outcome.check]}",
                                 "bold red"))
        found += [report.Line(f"  {problem}") for problem in shown]
        found += [report.Line(f"  and {more} more")] if more > 0 else []
    return found


# ---- machines ---------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    """Raises OSError."""
    write_atomically(path, text.encode("utf-8", "replace"))


def junit(verdicts: Sequence[Verdict], refusals: Iterable[tuple[str, Refusal]] = ()) -> str:
    """One suite for each bundle, one case for each check of each subject; what could not be checked is skipped, with the
    reason. `refusals`: (program, reason) of edits that could not become a bundle."""
    root = ElementTree.Element("testsuites", name="hotpatch verify")
    for verdict in verdicts:
        _suite(root, verdict.bundle, [_case(verdict.bundle, o) for o in verdict.outcomes])
    refused = [_refused_case(program, refusal) for program, refusal in refusals]
    if refused:
        _suite(root, "edits", refused)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(root: ElementTree.Element, name: str, cases: list[ElementTree.Element]) -> None:
    failures, skipped = (sum(c.find(tag) is not None for c in cases) for tag in ("failure", "skipped"))
    suite = ElementTree.SubElement(root, "testsuite", name=_clean(name), tests=str(len(cases)), failures=str(failures),
                                   skipped=str(skipped), errors="0")
    suite.extend(cases)


def _case(bundle: str, outcome: Outcome) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=_clean(f"{bundle}.{outcome.subject}"), name=outcome.check)
    if outcome.status == "failed":
        failure = ElementTree.SubElement(case, "failure", message=_clean(outcome.problems[0]), type=outcome.check)
        failure.text = _clean("\n".join(outcome.problems))
    elif outcome.status == "unchecked":
        ElementTree.SubElement(case, "skipped", message=_clean(outcome.why))
    return case


def _refused_case(program: str, refusal: Refusal) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=_clean(program), name=_clean(f"{refusal.object}: {refusal.name or REFUSED}"))
    failure = ElementTree.SubElement(case, "failure", message=_clean(str(refusal)), type=refusal.code)
    failure.text = _clean(str(refusal))
    return case


def _clean(text: str) -> str:
    """Without what XML 1.0 does not allow: names in bundles may hold anything."""
    return _NOT_XML.sub("\ufffd", text)


def sarif(verdicts: Sequence[Verdict], refusals: Iterable[tuple[Refusal, str, int]] = ()) -> str:
    """SARIF 2.1.0: a result for each failure, at the bundle; one for each refused edit, at its source.

    `refusals`: (reason, source file, line; 0: the file as a whole)."""
    results = [_result(o.check, "error", f"{o.subject}: {p}", verdict.bundle, 0)
               for verdict in verdicts for o in verdict.of("failed") for p in o.problems]
    results += [_result(o.check, "note", f"{o.subject}: not checked: {o.why}", verdict.bundle, 0)
                for verdict in verdicts for o in verdict.of("unchecked")]
    results += [_result(REFUSED, "error", f"{r} [{r.code}]", source, line) for r, source, line in refusals]
    rules = [{"id": name, "shortDescription": {"text": says}} for name, says in
             {**CHECKS, REFUSED: "the edit can be brought into the running program"}.items()]
    document = {"$schema": _SARIF_SCHEMA, "version": "2.1.0",
                "runs": [{"tool": {"driver": {"name": "hotreload", "version": __version__, "rules": rules}}, "results": results}]}
    return json.dumps(document, indent=2) + "\n"


def _result(rule: str, level: str, text: str, uri: str, line: int) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": uri}}
    if line:
        place["region"] = {"startLine": line}
    return {"ruleId": rule, "level": level, "message": {"text": text}, "locations": [{"physicalLocation": place}]}
