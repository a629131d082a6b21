"""What a compile costs whose includes were compiled before, beside the bare command: CPU seconds of the compiler, in turn.

usage: python benchmarks/prefix.py [--rounds N] [--llvm FOLDER] [--compilers gcc,clang]

FOLDER has sources of LLVM that fit the headers of the installed llvm-14-dev: Scalar/DCE.cpp is compiled. Packages of the
distribution are fetched (tests/real/aptsource.py). The bare command is run twice in each round: what differs is noise.
"""
from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "tests" / "real")]

import aptsource  # noqa: E402
import results  # noqa: E402

sys.path.insert(0, str(results.REPO))

from hotreload_tool import compiler  # noqa: E402
from hotreload_tool.instrument import Options, instrument  # noqa: E402
from hotreload_tool.objectmap import ObjectMap  # noqa: E402
from hotreload_tool.prefix.session import Prefixes  # noqa: E402
from hotreload_tool.prefix.unit import Command  # noqa: E402

_HEADERS = ("algorithm", "functional", "iostream", "map", "memory", "regex", "string", "unordered_map", "vector")
_SMALL = "".join(f"#include <{name}>\n" for name in _HEADERS) + """
std::map<std::string, int> names;
int add(const std::string &name, int n)
{
  std::vector<int> v{n, 2, 3};
  std::sort(v.begin(), v.end());
  return names[name] += v[0];
}
"""
_TARGET = 0.5


@dataclass
class Work:
    """One source with its compiler, and what was measured: seconds of each round by kind of compile."""
    name: str
    driver: str
    folder: Path
    source: str
    options: Sequence[str]
    headers_dominate: bool                     # the text of the headers is most of the unit's
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"bare": [], "again": [], "prefix": []})
    checking: list[float] = field(default_factory=list)
    prepare: float = 0.0
    equal: str = ""

    @property
    def command(self) -> Command:
        is_c = self.source.endswith(".c")
        driver = self.driver if is_c else {"gcc": "g++", "clang": "clang++"}[self.driver]
        ours = compiler.flags([driver], "c" if is_c else "c++", os.environ)
        return Command.of([driver, *self.options, *ours, "-c", "-o", "bare.o", self.source], str(self.folder), os.environ)

    def ratio(self, kind: str) -> float:
        """Median over rounds of one kind to the bare compile of the same round."""
        return statistics.median(mine / bare for mine, bare in zip(self.seconds[kind], self.seconds["bare"]))


def units(scratch: Path, llvm: Path | None, drivers: Sequence[str]) -> Iterator[Work]:
    for driver in drivers:
        (scratch / "small.cpp").write_text(_SMALL)
        yield Work(f"12 lines, {len(_HEADERS)} headers of the library", driver, scratch, "small.cpp", ("-O2",), True)
        if llvm:
            yield Work("LLVM, DCE.cpp", driver, llvm, "lib/Transforms/Scalar/DCE.cpp",
                       ("-O2", "-std=c++14", "-fno-exceptions", "-fno-rtti", "-I/usr/include/llvm-14", "-I/usr/include/llvm-c-14",
                        "-D__STDC_LIMIT_MACROS", "-D__STDC_CONSTANT_MACROS", "-D__STDC_FORMAT_MACROS"), True)
        json = unpacked("libjsoncpp", scratch)
        yield Work("jsoncpp, json_reader.cpp", driver, json, "src/lib_json/json_reader.cpp", ("-O2", "-Iinclude"), False)
        yield Work("Lua, lapi.c", driver, unpacked("lua5.4", scratch), "src/lapi.c", ("-O2",), False)


def unpacked(package: str, scratch: Path) -> Path:
    target = scratch / package
    if not target.is_dir():
        (description,) = aptsource.package(package).glob("*.dsc")
        subprocess.run(["dpkg-source", "--no-check", "-x", description, target], check=True, stdout=subprocess.DEVNULL)
    return target


# ---- measuring ---------------------------------------------------------------------------------------------------


def cpu_seconds(work: Callable[[], object]) -> float:
    """User and system time of the processes that `work` starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def bare(work: Work) -> None:
    command = work.command
    subprocess.run(command.argv, cwd=command.cwd, env=dict(command.env), check=True, stderr=subprocess.DEVNULL)


def mapped(path: Path) -> ObjectMap:
    return instrument(path.read_bytes(), "unit.o", Options(), str(path))[1]


def set_up(work: Work, prefixes: Prefixes) -> bool:
    """Compile the includes and compare a first object; False where there is no prefix."""
    deadline = time.monotonic() + 60
    work.prepare = cpu_seconds(lambda: prefixes.prepare(work.command))
    while not prefixes.prepare(work.command):
        if "was written while" not in prefixes.why(work.command) or time.monotonic() > deadline:
            work.equal = f"no prefix: {prefixes.why(work.command)}"
            return False
    bare(work)
    made = prefixes.compile(work.command, str(work.folder / "quick.o"), trial=True)
    assert made is not None, prefixes.why(work.command)
    quick, plain = work.folder / "quick.o", work.folder / "bare.o"
    verdict = prefixes.judge(made, mapped(quick) if made.succeeded else None, mapped(plain))
    same = quick.exists() and quick.read_bytes() == plain.read_bytes()
    work.equal = ("every byte" if same else "every digest") if verdict.agrees else f"no: {verdict.reason}"
    return verdict.agrees


def measure(work: Work, prefixes: Prefixes) -> None:
    """One round."""
    for kind in ("bare", "again"):
        work.seconds[kind].append(cpu_seconds(lambda: bare(work)))
    own = time.process_time()
    work.seconds["prefix"].append(cpu_seconds(lambda: prefixes.compile(work.command, str(work.folder / "quick.o"))))
    work.checking.append(time.process_time() - own)


# ---- the result --------------------------------------------------------------------------------------------------


def table(every: Sequence[Work]) -> results.Table:
    columns = ["unit", "compiler", "bare (CPU s)", "with prefix (CPU s)", "ratio", "bare twice", "own checks (CPU ms)",
               "making it (CPU s)", "object equal in"]
    rows: list[list[str | float]] = []
    for work in every:
        if work.seconds["prefix"]:
            medians = [statistics.median(work.seconds[kind]) for kind in ("bare", "prefix")]
            figures: list[str | float] = [*medians, work.ratio("prefix"), work.ratio("again"),
                                          1000 * statistics.median(work.checking), work.prepare]
        else:
            figures = ["", "", "", "", "", work.prepare]
        rows.append([work.name, work.driver, *figures, work.equal])
    return results.Table("", columns, rows)


def result(every: Sequence[Work], rounds: int) -> results.Result:
    dominated = [work.ratio("prefix") for work in every if work.headers_dominate and work.seconds["prefix"]]
    shown = f"{min(dominated):.2f} to {max(dominated):.2f}" if dominated else "nothing"
    about = ("A prefix is what the compiler made of the includes at the top of a unit (`hotreload_tool/prefix/`), with "
             "which `hotpatch watch` makes an edit live before the build compiles it. "
             f"Medians of {rounds} rounds, in which bare compile, bare compile and one with the prefix took turns; "
             "flags of the tool in all. What is made with it is compared with what the bare one makes.")
    return results.Result(
        name="prefix", title="Includes compiled once", about=about, tables=[table(every)], order=25,
        targets=[results.Target("compile with its includes compiled before / bare compile, where headers dominate", "≤ 0.5",
                                shown, bool(dominated) and max(dominated) <= _TARGET)],
        notes=["Where the unit's own text is most of it there is little to gain.",
               "Making a prefix costs about as much as the bare compile, behind what is live; gcc's take 50 to 100 MB each."],
        raw={f"{work.name}, {work.driver}": {**work.seconds, "checking": work.checking} for work in every})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--llvm", type=Path)
    parser.add_argument("--compilers", default="gcc,clang")
    given = parser.parse_args()
    drivers = [name for name in given.compilers.split(",") if shutil.which(name)]
    with tempfile.TemporaryDirectory() as scratch:
        prefixes = Prefixes(os.path.join(scratch, "prefixes"), most_bytes=4 << 30, low=0)
        every = list(units(Path(scratch), given.llvm and given.llvm.resolve(), drivers))
        for work in every:
            usable = set_up(work, prefixes)
            for _ in range(given.rounds if usable else 0):
                measure(work, prefixes)
            print(work.name, work.driver, work.equal, {k: round(work.ratio(k), 3) for k in ("prefix", "again")} if usable else "",
                  flush=True)
            result([w for w in every if w.equal], given.rounds).write()      # what is there, should the rest take too long
        prefixes.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
