"""The same edits of the same program, by this project and by what one would otherwise do, in turn, in one run.

usage: python benchmarks/side_by_side.py [--rounds N] [--generations N] [--only NAME,…] [--system FILE.py:CLASS] [--write]

The program is Lua (distribution's source package), asked one line at a time. Of each system: from save to the first new
answer, what of that is not the compiler, how long the program stood, memory that a further edit takes, and which of ten
edits went live with the program's state. --write files the result: benchmarks/results, docs/performance.
"""
from __future__ import annotations

import argparse
import contextlib
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent
sys.path[:0] = [str(REPO), str(HERE), *(str(REPO / "tests" / part) for part in (".", "live", "real"))]

import performance  # noqa: E402
from results import Result, Table  # noqa: E402
from sources import lua_source  # noqa: E402
from systems import Refused, System  # noqa: E402
from systems.dlopen import Dlopen  # noqa: E402
from systems.edits import EDITS, MISTAKE, SET_UP, STATE, STATE_KEPT, Edit, large, saved, small  # noqa: E402
from systems.gdb import GdbCompile  # noqa: E402
from systems.ours import Hotpatch, Watch  # noqa: E402
from systems.restart import FullRebuild, Restart  # noqa: E402

from livetools import LiveError, run  # noqa: E402

SYSTEMS: list[type[System]] = [Watch, Hotpatch, Restart, FullRebuild, Dlopen, GdbCompile]
PICTURES = REPO / "docs" / "performance"
_UNIT = {"small": "src/lmathlib.c", "large": "src/lvm.c"}
_SIZES: dict[str, Callable[[int], Edit]] = {"small": small, "large": large}


@dataclass
class Figures:
    """Of one system; times in ms, one value for each round."""
    save_to_live: dict[str, list[float]] = field(default_factory=lambda: {"small": [], "large": []})
    overhead: dict[str, list[float]] = field(default_factory=lambda: {"small": [], "large": []})
    pause: list[float] = field(default_factory=list)
    memory: float | None = None                     # KiB for one more edit
    verdicts: dict[str, str] = field(default_factory=dict)
    note: str = ""


# ---- what is measured --------------------------------------------------------------------------------------------


def measure(systems: Sequence[System], rounds: int, generations: int) -> dict[str, Figures]:
    figures = {s.name: Figures() for s in systems}
    for system in systems:
        say(f"{system.name}: build")
        system.build()
        fresh(system)
    for number in range(rounds):
        for system in systems[number % len(systems):] + systems[:number % len(systems)]:
            if isinstance(system, FullRebuild) and number >= 2:      # it takes as long as all others together
                continue
            for size in _SIZES:
                time_edit(system, size, number, figures[system.name])
    for system in systems:
        figures[system.name].memory = memory_of_an_edit(system, generations, figures[system.name])
    for edit in EDITS:
        for system in systems:
            figures[system.name].verdicts[edit.what] = judge(system, edit)
            say(f"{edit.what}: {system.name}: {figures[system.name].verdicts[edit.what]}")
    return figures


def time_edit(system: System, size: str, number: int, figures: Figures) -> None:
    """One round: the bare compiler on the edited file, then the edit until its answer is there."""
    edit = _SIZES[size](1000 + number)
    chunk, _, wanted = edit.asks[0]
    with saved(system.path, edit.changes):
        command = system.compile_command(_UNIT[size])
    begun = time.monotonic()
    run(command, cwd=system.path, timeout=300, code=0)
    bare = (time.monotonic() - begun) * 1e3
    with contextlib.suppress(Refused), saved(system.path, edit.changes):
        begun = time.monotonic()
        pause = system.update(edit.files).pause_us
        answer = system.ask(chunk)
        took = (time.monotonic() - begun) * 1e3
        if answer != wanted:
            raise LiveError(f"{system.name} said that {edit.what} is live, and answers {answer!r}, not {wanted!r}")
        figures.save_to_live[size].append(took)
        figures.overhead[size].append(took - bare)
        if pause is not None:
            figures.pause.append(pause / 1e3)
        say(f"{system.name}: {size}: {took:.0f} ms, compiler {bare:.0f}, pause {(pause or 0) / 1e3:.3f}")
    with contextlib.suppress(Refused):
        system.update(edit.files)


def memory_of_an_edit(system: System, generations: int, figures: Figures) -> float | None:
    """KiB of the program's own memory for each of `generations` edits after the first; None where none goes live."""
    if isinstance(system, GdbCompile):
        figures.pause = [(system.statement(f"guest_calls = {i}").pause_us or 0) / 1e3 for i in range(3)]
        figures.note = "pause: one statement run in the program"
        return None
    if isinstance(system, Restart):
        return 0.0
    sizes = []
    for number in range(generations + 1):
        with saved(system.path, small(2000 + number).changes):
            system.update(["src/lmathlib.c"])
        sizes.append(system.private_kib())
    return (sizes[-1] - sizes[0]) / generations


def judge(system: System, edit: Edit) -> str:
    """What became of an edit: live (with the state, or without), refused with its reason, or wrong."""
    fresh(system)
    try:
        with saved(system.path, edit.changes):
            try:
                system.update(edit.files)
            except Refused as e:
                return f"refused: {e}" if is_as_before(system, edit) else "wrong: refused, but changed"
            for chunk, _, wanted in edit.asks:
                if (answer := system.ask(chunk)) != wanted:
                    return f"wrong: said to be live, answers {answer}"
            ended = edit.what == "the function that runs all the time"      # its answers all have the new ending
            kept = system.ask(STATE).rstrip("!" if ended else "") == STATE_KEPT
            return "live" if kept else "live, state lost"
    except LiveError as e:
        return f"wrong: {str(e).splitlines()[0]}"
    finally:
        system.stop()
        system.build()


def is_as_before(system: System, edit: Edit) -> bool:
    return all(system.ask(chunk) == old for chunk, old, _ in edit.asks) and system.ask(STATE) == STATE_KEPT


def fresh(system: System) -> None:
    """A new process of the program as it was built first, with state in it."""
    system.stop()
    system.start()
    assert system.ask(SET_UP) == "3", f"{system.name} does not begin as the others"


_ABOUT = """\
The same edits of the same program (Lua, `-O2 -g`, 33 units), in turn in one run. **save to live**: until the program gives
the new answer; **overhead**: that less the compiler's own time for the edited unit, measured beside it; **pause**: how long the
program did not run; **memory**: of the program, for one more edit; **edits live**: of nine, with the program's state kept.
Medians."""


# ---- what is shown -----------------------------------------------------------------------------------------------


def result(figures: dict[str, Figures]) -> Result:
    return Result("side_by_side", "Side by side", _ABOUT,
        [measurements(figures), verdicts(figures)], order=90, raw={name: vars(f) for name, f in figures.items()},
        pictures=["performance/side_by_side.png"],
        notes=["gdb runs compiled code once and takes it away again, so it replaces no function.",
               "`dlopen` gives a new copy of all state; to keep using the old state with new code is for each program to write."])


_COLUMNS = ["system", "save to live, small unit", "large unit", "overhead, small unit", "large unit", "pause", "memory",
            "edits live"]


def measurements(figures: dict[str, Figures]) -> Table:
    rows: list[list[str | float]] = []
    for name, of in figures.items():
        live = sum(v == "live" for what, v in of.verdicts.items() if what != MISTAKE)
        rows.append([name, *(shown(of.save_to_live[s], " ms") for s in _SIZES), *(shown(of.overhead[s], " ms") for s in _SIZES),
                     shown(of.pause, " ms"), "–" if of.memory is None else f"{of.memory:.0f} KiB",
                     f"{live} of {len(of.verdicts) - 1}"])
    return Table("Figures", _COLUMNS, rows)


def verdicts(figures: dict[str, Figures]) -> Table:
    rows: list[list[str | float]] = [[edit.what, *(brief(of.verdicts[edit.what]) for of in figures.values())] for edit in EDITS]
    return Table("What became of each edit", ["edit", *figures], rows)


def brief(verdict: str) -> str:
    return verdict if len(verdict) < 90 else verdict[:87] + "…"


def shown(values: Sequence[float], unit: str) -> str:
    return "–" if not values else f"{statistics.median(values):.3g}{unit}"


def draw(figures: dict[str, Figures], path: Path) -> None:
    """Bars of the medians, on a logarithmic scale: the systems are orders of magnitude apart."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {"save to live, small unit (ms)": {n: f.save_to_live["small"] for n, f in figures.items()},
              "overhead over the compiler, small unit (ms)": {n: f.overhead["small"] for n, f in figures.items()},
              "pause (ms)": {n: f.pause for n, f in figures.items()}}
    drawing, axes = pyplot.subplots(1, len(panels), figsize=(15, 0.5 * len(figures) + 1.5), sharey=True)
    for axis, (title, values) in zip(axes, panels.items()):
        axis.barh(list(values), [max(statistics.median(v), 0.001) if v else 0 for v in values.values()], color="#4477aa")
        axis.set_xscale("log")
        axis.set_title(title, fontsize=10)
        axis.invert_yaxis()
    drawing.tight_layout()
    path.parent.mkdir(exist_ok=True)
    drawing.savefig(path, dpi=110)


def write(figures: dict[str, Figures]) -> None:
    made = result(figures)
    draw(figures, PICTURES / "side_by_side.png")
    made.write()
    template = performance.environment().from_string((HERE / "side_by_side.html.jinja").read_text())
    pictures = [Path(p).name for p in made.pictures]
    (PICTURES / "side_by_side.html").write_text(template.render(result=Result(**{**vars(made), "pictures": pictures})))
    performance.PAGE.write_text(performance.page(performance.read_all()))


# ---- the command -------------------------------------------------------------------------------------------------


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def foreign(place: str) -> type[System]:
    """The class of FILE.py:CLASS. Raises SystemExit where there is none."""
    file, _, name = place.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if not file or spec is None or spec.loader is None:
        raise SystemExit(f"{place}: not of the form FILE.py:CLASS")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, System)):
        raise SystemExit(f"{place}: {name} is not a class of systems.System")
    return found


@contextlib.contextmanager
def prepared(classes: Sequence[type[System]]) -> Iterator[list[System]]:
    sources = lua_source().path
    with tempfile.TemporaryDirectory(prefix="hr-") as folder, contextlib.ExitStack() as stack:
        systems = [kind(sources, Path(folder)) for kind in classes]
        for system in systems:
            stack.callback(system.close)
        yield systems


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--generations", type=int, default=20, help="edits to take the memory of (default: 20)")
    parser.add_argument("--only", help="names of systems, with commas: " + ", ".join(s.name for s in SYSTEMS))
    parser.add_argument("--system", action="append", default=[], metavar="FILE.py:CLASS", help="one more system")
    parser.add_argument("--write", action="store_true", help="file the result and make the page anew")
    args = parser.parse_args()
    classes = [s for s in SYSTEMS if not args.only or s.name in args.only.split(",")] + [foreign(place) for place in args.system]
    with prepared(classes) as systems:
        figures = measure(systems, args.rounds, args.generations)
    for table in result(figures).tables:
        print("\n".join(" | ".join(performance.cell(v) for v in row) for row in [table.columns, *table.rows]), end="\n\n")
    if args.write:
        write(figures)
    return int(any(v.startswith("wrong") for f in figures.values() for v in f.verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
