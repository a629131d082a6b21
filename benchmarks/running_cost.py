"""What instrumentation costs while programs run: CPU time, start, memory, size and build beside a plain build.

usage: python benchmarks/running_cost.py [--stubs KIND …] [--rounds N] [--work DIR] [--write] [PROGRAM …]

Programs are those of benchmarks/running_cost/programs.json, from the distribution's source packages. Each is built at -O2
without the tool and with it, for each kind of stubs. A round runs every build once, in an order drawn anew: the plain one twice
(how much the ratio of two identical builds differs from 1 is the noise), the others unpatched, and patched: with a generation
in which nearly every function of the program is another. main() is held until the patch is in (running_cost/gate.c), and what is
measured is CPU time, user and system, from there to the end of the process. Of each build the quickest eighth of the runs counts.
Programs run as a user without privileges also where root measures: those of root take locks (docs/consistency.md, Costs).
"""
from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO), str(REPO / "tests" / "live"), str(REPO / "tests" / "real")]

import aptsource  # noqa: E402
import cost_programs  # noqa: E402
from cost_programs import DATA, DEBUG, PLAIN, Build, Program, Tree  # noqa: E402
from replay import free_port  # noqa: E402
from results import Result, Table, Target  # noqa: E402

from hotreload_tool import bundle, process  # noqa: E402
from livetools import runtime_directory  # noqa: E402

_SECONDS = 300.0
_NOBODY = 65534                        # kernel.overflowuid
_ABOUT = """Real programs from the distribution's source packages, with work that takes each about a tenth of a second, built at
`-O2` without the tool and with it. In turn, in an order drawn anew for each round: the plain build, the same once more (the
noise), the build with the tool, and that one patched with a generation in which nearly *every* function of the program is another
(it begins with endbr64). CPU time is user and system from main() to the end (of a server: while a client asks), and the quickest
eighth of the runs counts."""
AGAIN = "plain again"


@dataclass(frozen=True)
class Run:
    """One process. Seconds of CPU time before main() and from there on; the most memory resident, KiB."""
    start: float
    work: float
    resident: int


class _Places(NamedTuple):
    """The preloaded gate, the environment of the programs, and the user they run as; None: this one."""
    gate: Path
    env: Mapping[str, str]
    user: int | None


@dataclass(frozen=True)
class Variant:
    name: str
    image: Path
    tree: Path
    patch: Path | None = None


# ---- one process -------------------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process so far (clock_getcpuclockid(3): the process's own clock of Linux)."""
    return time.clock_gettime((~pid << 3) | 2)


class Held:
    """A process that waits before main()."""

    def __init__(self, words: Sequence[str], places: _Places, cwd: Path) -> None:
        wait_on, self._go = os.pipe()
        self._told, tell_on = os.pipe()
        env = {**places.env, "LD_PRELOAD": str(places.gate), "HR_GATE": f"{wait_on},{tell_on}"}
        self._process = subprocess.Popen(words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, user=places.user,
                                         group=places.user, extra_groups=[] if places.user else None,
                                         stderr=subprocess.DEVNULL, pass_fds=(wait_on, tell_on), env=env)
        os.close(wait_on)
        os.close(tell_on)
        self.pid = self._process.pid
        if os.read(self._told, 1) != b"\1":
            raise SystemExit(f"{shlex.join(words)}: ended before main()")

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *about: object) -> None:
        for descriptor in (self._go, self._told):
            os.close(descriptor)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def go(self) -> None:
        os.write(self._go, b"\1")

    def end(self) -> tuple[float, int]:
        """Wait for it: CPU seconds of its whole life, and memory. Raises SystemExit unless it exits with 0."""
        _, status, used = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode:
            raise SystemExit(f"{shlex.join(map(str, self._process.args))} exited with {self._process.returncode}")
        return used.ru_utime + used.ru_stime, most_resident(os.read(self._told, 4096).decode())


def most_resident(status: str) -> int:
    """KiB, by /proc/PID/status. What wait4(2) tells counts this process too, from before exec."""
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def apply(pid: int, patch: Path) -> None:
    made = bundle.read(patch)
    with tempfile.TemporaryDirectory() as folder:
        payload = Path(folder) / "payload.so"
        payload.write_bytes(made.payloads[0])
        result = process.apply(pid, [payload], when="now", timeout=60)
    assert result.images[0].functions_live == result.images[0].functions_changed > 0


class Started:
    """One run of a variant, up to main(): patched if it is to be, on one CPU alone if `cpu` says so."""

    def __init__(self, tree: Tree, variant: Variant, places: _Places, cpu: int | None) -> None:
        self.tree, self.variant = tree, variant
        program = tree.program
        self.words: dict[str, object] = {"image": variant.image, "port": free_port() if program.server else 0}
        self.held = Held(tree.words(program.server or program.run, variant.tree, **self.words), places, variant.tree)
        self.start = cpu_seconds(self.held.pid)
        if variant.patch:
            apply(self.held.pid, variant.patch)
        if cpu is not None:
            os.sched_setaffinity(self.held.pid, {cpu})
        self.before = cpu_seconds(self.held.pid)

    def end(self) -> Run:
        """After `held.go()`."""
        with self.held:
            if self.tree.program.server:
                client = self.tree.words(self.tree.program.run, self.tree.base, **self.words)
                return Run(self.start, *_asked(self.tree, self.held.pid, client))
            used, memory = self.held.end()
            return Run(self.start, used - self.before, memory)


def run_together(tree: Tree, variants: Sequence[Variant], places: _Places, at_a_time: int) -> list[Run]:
    """As many at the same time as there are CPUs, each on its own, and at most `at_a_time`: what one takes from the others, they
    take from it. Servers share the machine with their client instead."""
    cpus: list[int | None] = [*sorted(os.sched_getaffinity(0))] if not tree.program.server else [None]
    random.shuffle(cpus)
    cpus = cpus[:at_a_time]
    found = []
    for at in range(0, len(variants), len(cpus)):
        started = [Started(tree, variant, places, cpu) for variant, cpu in zip(variants[at:], cpus)]
        for one in started:
            one.held.go()
        found += [one.end() for one in started]
    return found


def _asked(tree: Tree, pid: int, client: Sequence[str]) -> tuple[float, int]:
    """The server's CPU time while the client asks, and its memory."""
    until = time.monotonic() + _SECONDS
    while subprocess.run([*client, "-n", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
        if time.monotonic() > until:
            raise SystemExit(f"{tree.program.name} does not answer")
    before = cpu_seconds(pid)
    subprocess.run(client, stdout=subprocess.DEVNULL, check=True, timeout=_SECONDS)
    return cpu_seconds(pid) - before, most_resident(Path(f"/proc/{pid}/status").read_text())


# ---- one program -------------------------------------------------------------------------------------------------


def loaded(image: Path) -> dict[str, int]:
    """Bytes of an image: its code, what of it is loaded and has contents, and the file without symbols and debug information."""
    from elftools.elf.elffile import ELFFile
    with image.open("rb") as file:
        opened = ELFFile(file)
        code = sum(s["p_filesz"] for s in opened.iter_segments() if s["p_type"] == "PT_LOAD" and s["p_flags"] & 1)
        all_ = sum(s["p_filesz"] for s in opened.iter_segments() if s["p_type"] == "PT_LOAD")
    with tempfile.TemporaryDirectory() as folder:
        stripped = Path(folder) / "stripped"
        subprocess.run(["strip", "-o", stripped, image], check=True)
        return {"code": code, "loaded": all_, "stripped": stripped.stat().st_size, "file": image.stat().st_size}


def bundle_size(path: Path) -> dict[str, int]:
    """What a patch brings: functions, bytes of their code, of the payload, and of the bundle as a file."""
    made = bundle.read(path)
    brought = [f for entry in made.manifest["images"] for f in (*entry["changed"], *entry["added"])]
    return {"functions": len(brought), "code": sum(f["size"] for f in brought), "bundle": path.stat().st_size,
            "payload": sum(entry["payload"]["size"] for entry in made.manifest["images"])}


def measure(program: Program, options: argparse.Namespace, places: _Places) -> dict[str, Any]:
    tree = Tree(program, options.work / program.name, options.jobs)
    builds = {way: tree.build(way) for way in (PLAIN, DEBUG, *options.stubs)}
    variants = [Variant(name, builds[PLAIN].image, tree.tree(PLAIN)) for name in (PLAIN, AGAIN)]
    for kind in options.stubs:
        unpatched = Variant(kind, builds[kind].image, tree.tree(kind))
        variants += [unpatched, Variant(f"{kind} patched", unpatched.image, unpatched.tree, tree.patch(kind))]
    if places.user:
        subprocess.run(["chmod", "-R", "a+rwX", options.work / program.name], check=True)
    runs: dict[str, list[Run]] = {variant.name: [] for variant in variants}
    at_a_time = 1 if options.one_by_one else len(variants)
    for number in range(options.rounds + 1):
        order = random.sample(variants, len(variants))
        for variant, ran in zip(order, run_together(tree, order, places, at_a_time)):
            if number:                   # the first round only brings files into memory
                runs[variant.name].append(ran)
    return {**described(program, builds, runs), "bundles": {kind: bundle_size(tree.patch(kind)) for kind in options.stubs}}


def described(program: Program, builds: Mapping[str, Build], runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    plain = [r.work for r in runs[PLAIN]]
    variants = {}
    for name, ran in runs.items():
        work = [r.work for r in ran]
        low, high = interval(work, plain)
        variants[name] = {"cpu_s": round(quick(work), 4), "ratio": round(quick(work) / quick(plain), 4),
                          "ratio_low": round(low, 4), "ratio_high": round(high, 4),
                          "ratio_of_medians": round(statistics.median(work) / statistics.median(plain), 4),
                          "runs_s": [round(w, 4) for w in work],
                          "start_ms": round(1000 * statistics.median(r.start for r in ran), 3),
                          "resident_kib": round(statistics.median(r.resident for r in ran))}
    built = {way: {"cpu_s": round(b.seconds, 2), "again_cpu_s": round(b.again, 2), **loaded(b.image)}
             for way, b in builds.items()}
    return {"about": program.about, "variants": variants, "builds": built}


def quick(values: Sequence[float]) -> float:
    """The mean of the quickest eighth: those that others on the machine, and on its host, were least in the way of."""
    return statistics.fmean(sorted(values)[:max(1, len(values) // 8)])


def interval(values: Sequence[float], plain: Sequence[float]) -> tuple[float, float]:
    """Of the ratio: 95 % of what rounds drawn anew from these give (bootstrap)."""
    draw = random.Random(1)
    ratios = []
    for _ in range(1000):
        rounds = draw.choices(range(len(values)), k=len(values))
        ratios.append(quick([values[i] for i in rounds]) / quick([plain[i] for i in rounds]))
    ratios.sort()
    return ratios[25], ratios[974]


# ---- what is told ------------------------------------------------------------------------------------------------

_TARGETS = {"plt": (1.02, 1.06), "entry": (1.005, 1.02)}      # geometric mean, worst
_BUILD_TARGET = 1.10


def geomean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def cost_table(measured: Mapping[str, Any]) -> Table:
    """CPU time of each variant, as a ratio to the plain build's, with the interval of its noise."""
    names = [name for name in next(iter(measured.values()))["variants"] if name != PLAIN]
    rows: list[list[str | float]] = []
    for program, m in measured.items():
        found = [m["variants"][name] for name in names]
        cells = [f"{v['ratio']:.3f} ({v['ratio_low']:.3f}–{v['ratio_high']:.3f})" for v in found]
        rows.append([program, m["about"], f"{m['variants'][PLAIN]['cpu_s']:.3f}", *cells])
    rows.append(["**geometric mean**", "", "", *(f"**{geomean(ratios(measured, name)):.3f}**" for name in names)])
    return Table("CPU time from main() to the end, beside the plain build's (95 % of what the same rounds give when drawn anew)",
                 ["program", "", "plain, s", *names], rows)


def ratios(measured: Mapping[str, Any], name: str) -> list[float]:
    return [m["variants"][name]["ratio"] for m in measured.values()]


def size_table(measured: Mapping[str, Any], kinds: Sequence[str]) -> Table:
    rows: list[list[str | float]] = []
    for program, m in measured.items():
        for kind in kinds:
            v, p, b = m["variants"], m["builds"][PLAIN], m["builds"][kind]
            rows.append([program, kind, f"{v[PLAIN]['start_ms']:.2f} → {v[kind]['start_ms']:.2f}",
                         f"{v[PLAIN]['resident_kib']} → {v[kind]['resident_kib']}",
                         *(f"{p[key] / 1024:.0f} → {b[key] / 1024:.0f}" for key in ("code", "stripped")),
                         *(f"{value:.2f}" for value in build_ratios(m, kind))])
    for kind in kinds:
        every = zip(*(build_ratios(m, kind) for m in measured.values()))
        rows.append(["**geometric mean**", kind, "", "", "", "", *(f"**{geomean(values):.2f}**" for values in every)])
    return Table("Beside CPU time: plain → with the tool", [
        "program", "stubs", "CPU time to main(), ms", "resident, KiB", "code, KiB", "stripped image, KiB",
        "build : build with -O2", "build : build with -O2 -g", "first build : build with -O2 -g"], rows)


def bundle_table(measured: Mapping[str, Any], kinds: Sequence[str]) -> Table:
    rows: list[list[str | float]] = []
    for program, m in measured.items():
        for kind in kinds:
            b = m["bundles"][kind]
            sizes = [f"{b[part] / 1024:.0f}" for part in ("code", "payload", "bundle")]
            rows.append([program, kind, b["functions"], *sizes, f"{b['bundle'] / b['code']:.2f}"])
    caption = "The bundles of these patches (a payload has tables, strings and debug information too; a bundle is packed)"
    columns = ["program", "stubs", "functions", "their code, KiB", "payload, KiB", "bundle, KiB", "bundle : code"]
    return Table(caption, columns, rows)


def build_ratios(m: Mapping[str, Any], kind: str) -> tuple[float, float, float]:
    """CPU time of a full build beside plain ones; the last counts the runtime, which is compiled once."""
    plain, debug, ours = m["builds"][PLAIN]["again_cpu_s"], m["builds"][DEBUG]["again_cpu_s"], m["builds"][kind]
    return ours["again_cpu_s"] / plain, ours["again_cpu_s"] / debug, ours["cpu_s"] / debug


def targets(measured: Mapping[str, Any], kinds: Sequence[str]) -> list[Target]:
    found = []
    for kind in kinds:
        mean, worst = _TARGETS[cost_programs.kind_of(kind)]
        for name in (kind, f"{kind} patched"):
            values = ratios(measured, name)
            got, most = geomean(values), max(values)
            state = "unpatched" if name == kind else "nearly every function patched"
            found += [Target(f"`{kind}`, {state}: CPU time beside plain, geometric mean", f"≤ {mean}", f"{got:.3f}", got <= mean),
                      Target(f"`{kind}`, {state}: worst program", f"≤ {worst}",
                             f"{most:.3f} ({list(measured)[values.index(most)]})", most <= worst)]
        built = geomean([build_ratios(m, kind)[1] for m in measured.values()])
        found.append(Target(f"`{kind}`: full build beside plain -O2 -g, geometric mean", f"≤ {_BUILD_TARGET:.2f}", f"{built:.2f}",
                            built <= _BUILD_TARGET))
    return found


def result(measured: Mapping[str, Any], options: argparse.Namespace) -> Result:
    noise = ratios(measured, AGAIN)
    note = (f"Noise: two runs of the identical build differ by {min(noise):.3f} to {max(noise):.3f}; {options.rounds} rounds; "
            f"load of the machine at the end {os.getloadavg()[0]:.1f}.")
    tables = [cost_table(measured), size_table(measured, options.stubs), bundle_table(measured, options.stubs)]
    return Result("running_cost", "What it costs while programs run", _ABOUT, tables, targets(measured, options.stubs), [note],
                  order=20, raw=dict(measured))


# ---- the way through -----------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    known = cost_programs.programs()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=", ".join(known))
    parser.add_argument("--stubs", nargs="+", default=[os.environ.get("HOTRELOAD_STUBS", "plt")], metavar="KIND",
                        help="values of HOTRELOAD_STUBS")
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilers at the same time")
    parser.add_argument("--work", type=Path, help="keep sources and builds here, and use what an earlier run left")
    parser.add_argument("--one-by-one", action="store_true",
                        help="one process at a time: for machines whose CPUs share a core, and slow each other down")
    parser.add_argument("--beside", action="append", default=[], metavar="LABEL=CHECKOUT",
                        help="the tool of another checkout too, in the same rounds: KIND@LABEL")
    parser.add_argument("--write", action="store_true", help="keep the figures: benchmarks/results/running_cost.json")
    options = parser.parse_intermixed_args(argv)
    chosen = options.programs or list(known)
    cost_programs.CHECKOUTS.update(text.split("=", 1) for text in options.beside)
    options.stubs += [f"{kind}@{label}" for kind in options.stubs for label in cost_programs.CHECKOUTS]
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"programs.json has no {', '.join(unknown)}")
    results: dict[str, Any] = {}
    with contextlib.suppress(KeyboardInterrupt), _places(options) as places:     # Ctrl-C: with the programs that are done
        measure_all([known[name] for name in chosen], options, places, results)
    if not results:
        return 1
    made = result(results, options)
    print("\n\n".join(map(markdown, made.tables)))
    for target in made.targets:
        print(f"{'met   ' if target.met else 'missed'} {target.what}: {target.measured} ({target.wanted})")
    if options.write:
        print(made.write())
    return 0


def measure_all(programs: Sequence[Program], options: argparse.Namespace, places: _Places, results: dict[str, Any]) -> None:
    """Fills `results`, by the names of the programs."""
    for program in programs:
        try:
            results[program.name] = measure(program, options, places)
        except (aptsource.Unavailable, cost_programs.Failed) as e:
            print(f"{program.name}: left out: {e}", file=sys.stderr)
            continue
        print(program.name, json.dumps(results[program.name]["variants"]), file=sys.stderr, flush=True)


def markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


@contextlib.contextmanager
def _places(options: argparse.Namespace) -> Iterator[_Places]:
    """`options.work` is a directory from here on."""
    with tempfile.TemporaryDirectory() as folder, runtime_directory() as sockets:
        gate = Path(folder) / "gate.so"
        subprocess.run(["gcc", "-O2", "-fPIC", "-shared", DATA / "gate.c", "-o", gate, "-ldl"], check=True)
        options.work = (options.work or Path(folder)).absolute()
        os.environ["HOTRELOAD_RUNTIME_DIR"] = str(sockets)
        user = _NOBODY if os.geteuid() == 0 else None
        if user:
            os.chmod(folder, 0o755)
            os.chown(sockets, user, user)
        yield _Places(gate, dict(os.environ, LC_ALL="C"), user)


if __name__ == "__main__":
    sys.exit(main())
