"""`hotpatch attest PID`: what a process runs, by reading its memory and comparing it with image and bundles."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .. import process, report
from ..errors import HotreloadError
from . import readable_file, seconds, state_directory

if TYPE_CHECKING:
    from ..verify import attest, memory

NAME = "attest"
HELP = "compare what a process runs with image and bundles, by its memory"
TAMPERED, UNKNOWN = 1, 5
_SHOWN = 20


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pid", type=int, metavar="PID")
    parser.add_argument("--image", type=readable_file, action="append", default=[], metavar="IMAGE",
                        help="an image that the process should run, found by its build-id (default: the filed baselines, then "
                             "the file that the process was started from)")
    parser.add_argument("--bundle", type=readable_file, action="append", default=[], metavar="BUNDLE",
                        help="a bundle that may have been applied (default: those filed with the baselines)")
    parser.add_argument("--timeout", type=seconds, default=5.0, metavar="S",
                        help="seconds to wait for what the agent claims, which is then compared (default: 5)")


def run(args: argparse.Namespace) -> report.Result:
    try:
        from ..verify import attest, memory
    except ImportError as e:
        raise HotreloadError(f"attesting needs the Python package pyelftools, which is not installed ({e})") from e
    with memory.Memory(args.pid) as read:
        loaded = read.images()
        if not loaded:
            raise memory.NotReadable(f"process {args.pid} has no image that was built with hotreload")
        what = attest.known([*args.image, *_baselines(), *_own_files(args.pid, loaded)], [*args.bundle, *_chains()])
        found = [attest.attest(read, image, what) for image in loaded]
    claims = _claims(args.pid, args.timeout)
    for one in found:
        claimed = claims.get(one.build_id)
        if claimed is not None and not one.unknown and claimed != one.generation:
            one.problems.append(f"the agent claims generation {claimed}; by what the slots hold it is {one.generation}")
    return _result(args.pid, found, bool(claims))


def _baselines() -> list[Path]:
    return sorted(state_directory().glob("baselines/*/image"))


def _chains() -> list[Path]:
    return sorted(state_directory().glob("chains/*/*.hotpatch"))


def _own_files(pid: int, loaded: list[memory.Loaded]) -> list[Path]:
    """The files that the process has mapped, through the kernel's own links where it offers them."""
    paths = [Path(f"/proc/{pid}/exe"), *(Path(f"/proc/{pid}/root{image.path}") for image in loaded)]
    return [path for path in paths if path.is_file()]


def _claims(pid: int, timeout: float) -> dict[str, int]:
    """Build-id -> the generation that the agent says is live; nothing if it does not answer."""
    try:
        return {image.build_id: image.generation for image in process.status(pid, timeout).images}
    except HotreloadError:
        return {}


def _result(pid: int, found: list[attest.Attested], answered: bool) -> report.Result:
    document = {"pid": pid, "images": [one.document() for one in found], "agent_answered": answered,
                "attested": all(not one.problems and not one.unknown for one in found)}
    lines, problems = [], []
    for one in found:
        head = f"{one.path} (pid {pid})"
        if one.unknown:
            problems.append(report.Line(f"{head}: not compared: {one.unknown}", "yellow"))
        elif one.problems:
            problems.append(report.Line(f"{head}: NOT what image and bundles say", "bold red"))
            problems += [report.Line(f"  {p}") for p in one.problems[:_SHOWN]]
            problems += [report.Line(f"  and {len(one.problems) - _SHOWN} more")] if len(one.problems) > _SHOWN else []
        else:
            said = f"generation {one.generation}" if one.generation else "as it was built"
            lines.append(report.Line(f"{head}: {said}; code, constants and slots are what image and bundles say", "bold green"))
            lines.append(report.Line(f"  build-id {one.build_id}; {report.size(one.checked.get('bytes', 0))} and "
                                     f"{report.plural(one.checked.get('slots', 0), 'slot')} compared", "dim"))
    if any(one.not_at_hand for one in found):
        problems.append(report.Line(f"  images and bundles were looked for in {state_directory()}; if they are elsewhere, set "
                                    "HOTRELOAD_DIR to the build's .hotreload, or name them by --image and --bundle"))
    if not answered:
        lines.append(report.Line("  the agent did not answer; what it would claim was not compared", "yellow"))
    code = TAMPERED if any(one.problems for one in found) else UNKNOWN if any(one.unknown for one in found) else 0
    return report.Result(document, lines, problems, code)
