"""What people and scripts are told. Short, and never more than is known.

Everything here turns documents (plain dictionaries, as `--json` prints them) into lines of text; nothing here asks
a process or reads a file. `show` is the only function that writes.
"""
from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from .demangle import readable
from .errors import Refusal, Refused, system_error
from .names import LOCAL_SEPARATOR

Document = dict[str, Any]

STOOD_BY = "ABANDONED_BY_OTHERS"      # the agents' code for it
_SHOWN_NAMES = 8      # of a longer list, this many names and a count
_SHOWN_GENERATIONS = 8     # of those that have anything mapped, in `status`
_LAYOUT = "type-layout"   # code of the refusals that come in crowds: every template made with a changed type
_SHORT_ID = 12        # hex digits of a build-id in running text; `--json` has all of them


@dataclass(frozen=True)
class Line:
    """One line for people. `style` is a style of rich, used on terminals only."""
    text: str
    style: str = ""


@dataclass
class Result:
    """What a command came to: `document` for `--json`, `lines` for standard output, `problems` for standard error."""
    document: Document
    lines: list[Line] = field(default_factory=list)
    problems: list[Line] = field(default_factory=list)
    exit_code: int = 0


def show(result: Result, as_json: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
    """Print `result`: its lines, or with `as_json` exactly one JSON document. Problems go to `err` either way."""
    out, err = out or sys.stdout, err or sys.stderr
    if as_json:
        print(json.dumps(result.document, indent=2, sort_keys=True), file=out)
    else:
        _print(result.lines, out)
    _print(result.problems, err)


def _print(lines: Sequence[Line], stream: TextIO) -> None:
    if not lines or not stream.isatty():
        for line in lines:
            print(line.text, file=stream)
        return
    from rich.console import Console  # only now: importing it costs more than all the rest of `hotpatch ps`

    console = Console(file=stream, highlight=False)
    for line in lines:
        console.print(line.text, style=line.style or None, markup=False, soft_wrap=True)


# ---- failures --------------------------------------------------------------------------------------------------


def failure(error: Exception) -> Result:
    """An error as a result, with the exit code it stands for."""
    document = failure_document(error)
    return Result(document, problems=_failure_lines(error, document), exit_code=document["exit_code"])


def failure_document(error: Exception) -> Document:
    """`error` as `{"error", "message", "exit_code"}` and, where known, `detail` and `refusals`."""
    said = system_error(error) if isinstance(error, OSError) else str(getattr(error, "message", error))
    document: Document = {"error": _code_name(error), "message": said,
                          "exit_code": int(getattr(error, "exit_code", 1))}
    detail = getattr(error, "detail", "")
    if detail:
        document["detail"] = str(detail)
    if isinstance(error, Refused):
        document["refusals"] = [vars(r) for r in error.refusals]
    if getattr(error, "unknown", False):
        document["unknown"] = True
    told = getattr(error, "document", {})
    document.update({key: told[key] for key in ("blocked", "guard") if told.get(key)})
    return document


def _code_name(error: Exception) -> str:
    code = getattr(error, "code", None)
    return str(getattr(code, "name", code) or type(error).__name__.upper())


def _failure_lines(error: Exception, document: Document) -> list[Line]:
    if isinstance(error, Refused):
        return [Line("refused, nothing changed:", "bold red"), *_refusal_lines(error.refusals)]
    detail = document.get("detail", "")
    said = document["message"]
    return [Line(f"hotpatch: {said}: {detail}" if detail and detail not in said else f"hotpatch: {said}", "bold red")]


def _refusal_lines(refusals: Sequence[Refusal]) -> list[Line]:
    """One line for each refusal; templates are named with the type they are made of, whose change is the reason."""
    types = [r.name for r in refusals if r.code == _LAYOUT]
    made_of = {name: _root(name, types) for name in types}
    lines = []
    for refusal in refusals:
        if made_of.get(refusal.name, refusal.name) != refusal.name and refusal.code == _LAYOUT:
            continue
        more = sum(root == refusal.name != name for name, root in made_of.items()) if refusal.code == _LAYOUT else 0
        others = f" (and of {plural(more, 'type')} made with it)" if more else ""
        lines.append(Line(f"  {_place(refusal)}{refusal.reason}{others}; {refusal.advice}"))
    return lines


def _place(refusal: Refusal) -> str:
    """Object and name, as people write them."""
    name, _, obj = refusal.name.partition(LOCAL_SEPARATOR)
    plain = readable([name if obj == refusal.object else refusal.name])[0]
    return "".join(f"{part}: " for part in (refusal.object, plain) if part)


def _root(name: str, types: Sequence[str]) -> str:
    """The plainest of `types` that is an argument of template `name`; `name` itself if there is none."""
    _, _, arguments = name.partition("<")
    for other in sorted(types, key=lambda t: (t.count("<"), len(t), t)):
        bare = other.removeprefix("struct ").removeprefix("class ").removeprefix("union ")
        if other != name and bare in arguments and re.search(rf"(?<![\w:]){re.escape(bare)}(?![\w:])", arguments):
            return other
    return name


# ---- apply -----------------------------------------------------------------------------------------------------


def image_outcome(pid: int, manifest_image: Document, answer: Document, seconds: float) -> Document:
    """One entry of `apply --json`: what the agent of `pid` answered about one image, with the bundle's names.

    `seconds` is the whole exchange as the tool saw it; `pause_us` and `threads_stopped` are the agent's.
    `frames_in_old_code` is None where no stack was examined.
    """
    build_id = manifest_image["build_id"]
    live: Document = next((i for i in answer.get("images", []) if i.get("build_id") == build_id), {})
    data = manifest_image["data"]
    return {
        "pid": pid, "build_id": build_id, "generation": live.get("generation", manifest_image["generation"]),
        "dry_run": bool(answer.get("dry_run", False)), "already": bool(live.get("already", False)),
        "waiting": bool(live.get("waiting", False)),
        "functions_changed": len(manifest_image["changed"]), "functions_live": live.get("functions_live"),
        "changed": [f["name"] for f in manifest_image["changed"]],
        "added": [f["name"] for f in manifest_image["added"]],
        "removed": [f["name"] for f in manifest_image["removed"]],
        "data_added": [d["name"] for d in data["added"]], "data_updated": [d["name"] for d in data["updated"]],
        "updates_applied": live.get("updates_applied", 0), "updates_kept": live.get("updates_kept", 0),
        "notes": list(manifest_image.get("notes", [])),
        "frames_in_old_code": answer.get("frames_in_old_code"), "threads_stopped": answer.get("threads_stopped"),
        "threads_interrupted": answer.get("threads_interrupted"), "threads_asleep": answer.get("threads_asleep"),
        "gates_us": answer.get("gates_us"), "attempts": answer.get("attempts"),
        "pause_us": answer.get("pause_us"), "commit_us": answer.get("commit_us"), "seconds": round(seconds, 6),
        "protections_restored": answer.get("protections_restored", True), "answer_lost": bool(answer.get("answer_lost", False)),
    }


def is_whole(outcome: Document) -> bool:
    """Whether every function that the patch changes was read back as live (in a dry run, and of a library that is not
    loaded, nothing is)."""
    return bool(outcome["dry_run"] or outcome["waiting"]) or outcome["functions_live"] == outcome["functions_changed"]


def is_empty(outcome: Document) -> bool:
    """Whether the patch changes nothing at all."""
    return not any(outcome[k] for k in ("functions_changed", "added", "removed", "data_added", "data_updated"))


def applied(program: str, outcomes: Sequence[Document], failures: Sequence[tuple[int, Exception]] = ()) -> Result:
    """The result of an apply: `outcomes` of `image_outcome`, `failures` as (pid, error).

    The document repeats the first outcome at the top level, so that the usual case, one process with one image, reads
    without indexing. The exit code is that of the first failure; processes that only stood by come last.
    """
    failures = sorted(failures, key=lambda f: _stood_by(f[1]))
    document: Document = {**(outcomes[0] if outcomes else {}), "program": program, "outcomes": list(outcomes)}
    document["failures"] = [{"pid": pid, **failure_document(error)} for pid, error in failures]
    lines = [line for outcome in outcomes for line in outcome_lines(program, outcome)]
    problems = [line for outcome in outcomes if not is_whole(outcome) for line in _not_whole(outcome)]
    code = 0 if all(is_whole(o) for o in outcomes) else 1
    code = code or next((failure(error).exit_code for _, error in failures), 0)
    if failures and not outcomes:
        document.update(document["failures"][0])
    return Result(document, lines, problems + failures_of(program, failures), code)


def failures_of(program: str, failures: Sequence[tuple[int, Exception]]) -> list[Line]:
    """Who could not be patched and why; then, in one line, who was left as it was because of them."""
    lines = []
    for pid, error in failures:
        if not _stood_by(error):
            unknown = "not known whether this process changed" if getattr(error, "unknown", False) else ""
            said = unknown or getattr(error, "became", "nothing changed in this process")
            lines += [Line(f"{program} (pid {pid}): {said}", "bold red"), *failure(error).problems]
    others = [str(pid) for pid, error in failures if _stood_by(error)]
    if others:
        lines.append(Line(f"{program} ({'pid' if len(others) == 1 else 'pids'} {', '.join(others)}): left unchanged, since all "
                          "of them are patched or none", "bold red"))
    return lines


def _stood_by(error: Exception) -> bool:
    """Whether it is only that another process could not take the patch."""
    return _code_name(error) == STOOD_BY and not getattr(error, "document", {}).get("blocked")


def guarded(outcomes: Sequence[Document], failures: Sequence[tuple[int, Exception]],
            verdicts: Sequence[tuple[int, Document | Exception]]) -> tuple[list[Document], list[tuple[int, Exception]]]:
    """Outcomes and failures after guards: what crashed is no longer an outcome."""
    said = dict(verdicts)
    left = [{**o, "guard": said[o["pid"]]} if o["pid"] in said else o for o in outcomes
            if not isinstance(said.get(o["pid"]), Exception)]
    return left, [*failures, *((pid, v) for pid, v in verdicts if isinstance(v, Exception))]


def guard_lines(said: Document | None) -> list[Line]:
    """What a guard's report says to people, other than that it is over: who crashed is told by guard.Crashed."""
    if not said:
        return []
    span = duration(1000 * (said["ends_ms"] - said["begun_ms"]))
    texts = {"passed": f"  guard: no crash in new code within {span}",
             "ended": "  guard: ended early, by another apply or revert; no crash in new code until then",
             "armed": f"  guard: a crash in new code within {span} takes it back"}
    return [Line(texts[said["state"]], "dim")] if said["state"] in texts else [_crash_line(said)]


def _crash_line(said: Document) -> Line:
    back = ", ".join(f"generation {i['generation']} crashed and generation {i['before']} is live again" for i in said["images"])
    what = back if said["reverted"] else "new code crashed and could not be taken back"
    return Line(f"  guard: {what}: {said['signal']} in thread {said['tid']} ({said['thread']})", "bold red")


def outcome_lines(program: str, outcome: Document) -> list[Line]:
    """What one process was told about one image. Where several programs are patched the outcome has its own."""
    head = f"{outcome.get('program', program)} (pid {outcome['pid']})"
    if is_empty(outcome):
        return [Line(f"{head}: nothing changed", "bold")]
    if outcome["waiting"]:
        return [Line(f"{head}: {_waiting(outcome)}", "bold"), *_what_changes(outcome, "will change")]
    if outcome["dry_run"]:
        return [Line(f"{head}: would take generation {outcome['generation']}; nothing was changed", "bold"),
                *_what_changes(outcome, "would change")]
    n, live = outcome["functions_changed"], outcome["functions_live"]
    if outcome["answer_lost"]:
        said = (f"is at generation {outcome['generation']}, {live} of {n} functions live; its answer was lost, and it was asked "
                "again")
        return [Line(f"{head}: {said}", "bold"), *_what_changes(outcome, "changed"), *_notes(outcome)]
    if outcome["already"]:
        said = f"generation {outcome['generation']} was there already, {live} of {n} functions live"
    else:
        said = f"{plural(n, 'function')} changed, {live} live, generation {outcome['generation']}"
    style = "bold green" if is_whole(outcome) else "bold"
    return [Line(f"{head}: {said}", style), *_what_changes(outcome, "changed"), *_updates(outcome),
            *_notes(outcome), *_protections(outcome), *_old_code(outcome), *_times(outcome),
            *guard_lines(outcome.get("guard"))]


def _waiting(outcome: Document) -> str:
    would = "would take" if outcome["dry_run"] else "takes"
    known = ", as it was told before" if outcome["already"] else ""
    return f"not loaded; it {would} generation {outcome['generation']} when it is loaded{known}"


def _what_changes(outcome: Document, verb: str) -> list[Line]:
    rows = [(verb, outcome["changed"]), ("new", outcome["added"]), ("no longer called", outcome["removed"]),
            ("new data", outcome["data_added"])]
    return [Line(f"  {label}: {names(which)}") for label, which in rows if which]


def _updates(outcome: Document) -> list[Line]:
    applied_n, kept = outcome["updates_applied"], outcome["updates_kept"]
    lines = []
    if outcome["data_updated"]:
        lines.append(Line(f"  data with new content: {names(outcome['data_updated'])}; "
                          f"{plural(applied_n, 'place')} took it"))
    if kept:
        lines.append(Line(f"  kept: {plural(kept, 'place')} no longer held the old initialiser, "
                          "so the live value stays"))
    return lines


def _notes(outcome: Document) -> list[Line]:
    return [Line(f"  {note}") for note in outcome["notes"]]


def _protections(outcome: Document) -> list[Line]:
    if outcome["protections_restored"]:
        return []
    return [Line("  some pages that were opened for the patch could not be made read-only again; the process tries it again "
                 "with the next request (`hotpatch status`)", "yellow")]


def _old_code(outcome: Document) -> list[Line]:
    if not outcome["functions_changed"]:
        return []
    frames = outcome["frames_in_old_code"]
    if frames is None:
        return [Line("  old code: calls that were under way finish in it (stacks were not examined)", "dim")]
    if frames:
        return [Line(f"  old code: {plural(frames, 'call')} still under way will finish in it", "yellow")]
    return [Line("  old code: no call is left in it", "dim")]


def _times(outcome: Document) -> list[Line]:
    took = f"  took {duration(outcome['seconds'] * 1e6)}"
    stopped = outcome["threads_stopped"]
    if stopped is None:
        return [Line(took, "dim")]
    asleep = outcome.get("threads_asleep")
    left = f", {asleep} left asleep" if asleep else ""
    if not stopped:
        return [Line(f"{took}; no thread was stopped{left}", "dim")]
    woken = outcome.get("threads_interrupted")
    return [Line(f"{took}; {plural(stopped, 'thread')} stopped for {duration(outcome['pause_us'] or 0)}"
                 + (f", {woken} of them in a system call" if woken else "") + left, "dim")]


def _not_whole(outcome: Document) -> list[Line]:
    live = outcome["functions_live"]
    read = "the process did not say what is live" if live is None else f"only {live} read back as live"
    return [Line(f"pid {outcome['pid']}: {plural(outcome['functions_changed'], 'function')} changed, but {read}; "
                 "restart the program to be sure of what runs", "bold red")]


# ---- revert ----------------------------------------------------------------------------------------------------


def reverted(path: str, before: int, answer: Document, seconds: float) -> Result:
    """The result of a revert of the image at `path`, which was at generation `before`; `answer` is the agent's document."""
    image: Document = answer["images"][0]
    outcome = {**image, **{k: answer.get(k) for k in ("pid", "dry_run", "frames_in_old_code", "threads_stopped",
                                                      "threads_interrupted", "threads_asleep", "gates_us", "attempts",
                                                      "pause_us", "commit_us")},
               "protections_restored": answer.get("protections_restored", True),
               "path": path, "from_generation": before, "seconds": round(seconds, 6)}
    head, n = f"{path} (pid {answer['pid']})", image["functions_changed"]
    if image["already"] and answer.get("answer_lost"):
        return Result(outcome, [Line(f"{head}: back from generation {before} to {image['generation']}; its answer was lost, and "
                                     "it was asked again", "bold")])
    if image["already"]:
        return Result(outcome, [Line(f"{head}: is at generation {image['generation']} already", "bold")])
    if image.get("waiting"):
        return Result(outcome, [Line(f"{head}: not loaded; {_waiting_after_revert(outcome)}", "bold")])
    if answer["dry_run"]:
        return Result(outcome, [Line(f"{head}: {plural(n, 'function')} would go back; nothing was changed", "bold")])
    whole = image["functions_live"] == n
    lines = [Line(f"{head}: back from generation {before} to {image['generation']}, {plural(n, 'function')} as before",
                  "bold green" if whole else "bold"),
             *_reverted_data(image), *_protections(outcome), *_old_code({**outcome, "functions_changed": n}), *_times(outcome)]
    return Result(outcome, lines, [] if whole else _not_whole(outcome), 0 if whole else 1)


def reverted_together(path: str, results: Sequence[Result], failures: Sequence[tuple[int, Exception]]) -> Result:
    """The result of a revert of several processes: `results` of `reverted`, `failures` as (pid, error); see `applied`."""
    failures = sorted(failures, key=lambda f: _stood_by(f[1]))
    document: Document = {**(results[0].document if results else {}), "outcomes": [r.document for r in results],
                          "failures": [{"pid": pid, **failure_document(error)} for pid, error in failures]}
    if failures and not results:
        document.update(document["failures"][0])
    code = max((r.exit_code for r in results), default=0) or next((failure(e).exit_code for _, e in failures), 0)
    return Result(document, [line for r in results for line in r.lines],
                  [line for r in results for line in r.problems] + failures_of(path, failures), code)


def _waiting_after_revert(outcome: Document) -> str:
    generation = outcome["generation"]
    if outcome["dry_run"]:
        return "nothing was changed"
    return f"it takes generation {generation} when it is loaded" if generation else "it is as it was built when it is loaded"


def _reverted_data(image: Document) -> list[Line]:
    back, kept = image["updates_applied"], image["updates_kept"]
    said = ([f"{plural(back, 'place')} put back"] if back else []) + (
        [f"{plural(kept, 'place')} left, since the program has changed them"] if kept else [])
    return [Line(f"  data: {'; '.join(said)}")] if said else []


# ---- ps, status ------------------------------------------------------------------------------------------------


def processes(found: Sequence[Document], silent: Sequence[Document] = ()) -> Result:
    """`ps`: `found` are agents' status documents, `silent` say of the others why not: {"pid", "error", …}."""
    rows = [("PID", "GENERATION", "BUILD-ID", "PROGRAM")]
    for status in found:
        images = status["images"] or [{}]
        rows += [(str(status["pid"]), str(i.get("generation", "-")), i.get("build_id", "-")[:_SHORT_ID],
                  i.get("path") or status["executable"]) for i in images]
    lines = columns(rows) if found else [Line("no running process of yours has an agent")]
    problems = [Line(f"pid {s['pid']}: {s['message']}", "yellow") for s in silent]
    return Result({"processes": list(found), "silent": list(silent)}, lines, problems)


def status_of(status: Document) -> Result:
    """`status`: one agent's status document."""
    mode = {"thread": "its own thread", "poll": "the program's polling"}.get(status["mode"], status["mode"])
    lines = [Line(f"{status['executable']} (pid {status['pid']}): served by {mode}", "bold")]
    for image in status["images"]:
        lines += _image_lines(image)
    loaded = {image["build_id"] for image in status["images"]}
    lines += [_kept_line(kept) for kept in status.get("kept", []) if kept["build_id"] not in loaded]
    return Result(status, lines + guard_lines(status.get("guard")))


def _kept_line(kept: Document) -> Line:
    """A library that was patched and is not loaded, or not loaded any more."""
    return Line(f"  not loaded: build-id {kept['build_id'][:_SHORT_ID]}, takes generation {kept['generation']} when it is loaded")


def _image_lines(image: Document) -> list[Line]:
    arena = image["arena"]
    generation = image["generation"]
    live = f"generation {generation}" if generation else "as it was built"
    lines = [Line(f"  {image['path']} ({image['kind']}): {live}"), Line(f"    build-id {image['build_id']}", "dim")]
    missed = image.get("missed")
    if missed:
        lines.append(Line(f"    lacks what came until generation {missed['generation']}: when it was loaded, "
                          f"{missed['reason']}; apply those again", "yellow"))
    if arena["size"]:
        used = max(0, arena["used_end"] - arena["address"])
        lines.append(Line(f"    room for patches: {size(used)} of {size(arena['size'])} used", "dim"))
    return [*lines, *_mapped_lines(image)]


def _mapped_lines(image: Document) -> list[Line]:
    """What is mapped of which generation."""
    mapped = [(p, "") for p in image.get("payloads", [])] + [(p, ", reverted") for p in image.get("reverted", [])]
    lines = [Line(f"    generation {p['generation']}{more}: {size(p['mapped'])} mapped", "dim")
             for p, more in mapped[:_SHOWN_GENERATIONS]]
    if len(mapped) > _SHOWN_GENERATIONS:
        rest = mapped[_SHOWN_GENERATIONS:]
        lines.append(Line(f"    {plural(len(rest), 'generation')} more: {size(sum(p['mapped'] for p, _ in rest))} mapped", "dim"))
    if image.get("unmapped"):
        lines.append(Line(f"    {plural(image['unmapped'], 'generation')} superseded: nothing mapped", "dim"))
    return lines


# ---- inspect, diff ---------------------------------------------------------------------------------------------


def bundle(path: str, manifest: Document) -> Result:
    """`inspect`: the manifest is the document."""
    lines = [Line(f"{path}: {manifest['program']}, made {manifest['created']} by hotreload {manifest['tool']}", "bold")]
    for image in manifest["images"]:
        lines += _manifest_lines(image)
    return Result(manifest, lines)


def _manifest_lines(image: Document) -> list[Line]:
    start, end = image["arena"]
    follows = "the image as built" if image["generation"] == 1 else f"generation {image['generation'] - 1}"
    data = image["data"]
    rows = [("changed", image["changed"]), ("new", image["added"]), ("removed", image["removed"]),
            ("new data", data["added"]), ("data with new content", data["updated"]),
            ("data in the padding of", data.get("bound", []))]
    return [Line(f"  generation {image['generation']} of {image['kind']} {image['build_id']}, after {follows}"),
            *(Line(f"    {label}: {names([w['name'] for w in which])}") for label, which in rows if which),
            Line(f"    payload: {size(image['payload']['size'])} at {start:#x}..{end:#x}", "dim"),
            *(Line(f"    {note}") for note in image.get("notes", []))]


def differences(document: Document) -> Result:
    """`diff`: `document` has lists of names under `changed`, `added`, `removed` and `data`."""
    rows = [("changed", "changed"), ("added", "new"), ("removed", "removed"), ("data", "data")]
    lines = [Line(f"{label}: {name}") for key, label in rows for name in readable(document[key])]
    return Result(document, lines or [Line("nothing changed")])


# ---- words -----------------------------------------------------------------------------------------------------


def names(which: Iterable[str]) -> str:
    """A list of names for people: all if few, else the first ones and how many more."""
    listed = list(which)
    more = len(listed) - _SHOWN_NAMES
    return ", ".join(readable(listed[:_SHOWN_NAMES])) + (f" and {more} more" if more > 0 else "")


def readable_name(name: str) -> str:
    """A function's unique name as people write it."""
    return readable([name.partition(LOCAL_SEPARATOR)[0]])[0]


def bundled(path: str, manifest: Document | None, build_id: str, plain_known: bool) -> Result:
    """What `hotpatch bundle` made; `manifest` is None where nothing changed."""
    document: Document = {"bundle": path if manifest else None, "build_id": build_id, "uninstrumented_known": plain_known,
                          "generation": None, "changed": [], "added": [], "removed": []}
    lines = [Line("nothing changed: no bundle written", "bold")]
    if manifest is not None:
        entry = manifest["images"][0]
        document["generation"] = entry["generation"]
        document.update({kind: [f["name"] for f in entry[kind]] for kind in ("changed", "added", "removed")})
        lines = [Line(f"{path}: generation {entry['generation']} of build-id {build_id[:_SHORT_ID]}", "bold"),
                 Line(f"  changed or new: {names([*document['changed'], *document['added']]) or 'data only'}"),
                 *(Line(f"  {note}") for note in entry["notes"])]
    problems = [] if plain_known else [Line("note: how the base was linked is not known, so a change in what is not "
                                            "instrumented was not looked for; set HOTRELOAD_DIR to that of its build")]
    return Result(document, lines, problems)


def plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def duration(microseconds: float) -> str:
    """Microseconds in the unit a reader wants: "350 µs", "3.1 ms", "1.25 s"."""
    if microseconds < 1000:
        return f"{microseconds:.0f} µs"
    return f"{microseconds / 1000:.1f} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.2f} s"


def size(n: int) -> str:
    """Bytes in binary units: "512 bytes", "12.3 KiB", "64 MiB"."""
    if n < 1024:
        return plural(n, "byte")
    for unit, scale in (("KiB", 1 << 10), ("MiB", 1 << 20)):
        if n < scale << 10:
            return f"{n / scale:.1f}".removesuffix(".0") + f" {unit}"
    return f"{n / (1 << 30):.1f}".removesuffix(".0") + " GiB"


def columns(rows: Sequence[Sequence[str]]) -> list[Line]:
    """Rows as aligned columns, the first one a heading; the last column is not padded."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    texts = ["  ".join([*(c.ljust(w) for c, w in zip(row[:-1], widths)), row[-1]]) for row in rows]
    return [Line(texts[0], "bold"), *(Line(t) for t in texts[1:])]
