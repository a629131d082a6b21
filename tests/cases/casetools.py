"""What `test_cases.py` runs a case with: reading it, building its versions, patching its processes.

Programs are built with the compiler directly and patched through the tool's Python interface, so that a case costs well
under a second. Nothing of a case is written into the source tree.
"""
from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import stubkind

from hotreload_tool import bundle, compiler, elf, hotpatch, instrument, names, process
from hotreload_tool.baseline import Store
from hotreload_tool.errors import Refused
from hotreload_tool.objectmaps import ObjectMaps
from hotreload_tool.request import ImageKind, ImageRequest, LinkRequest, ObjectRequest
from livetools import LiveError, Program, clean_environment

CASES = Path(__file__).resolve().parent
LIBRARY = CASES / "lib"
RUNTIME = CASES.parents[1] / "runtime"
ARENA = 4 << 20                       # bytes reserved in each program
_SECONDS = 120.0                      # bound on one compile or link
_REPLY_SECONDS = 60.0                 # bound on one answer of a program

_CONFIGURATIONS = {
    "small": ("gcc -O0 pie", "gcc -O2 pie", "gcc -O3 exec", "clang -O2 pie"),
    "full": tuple(f"{c} {level} {kind}" for c in ("gcc", "clang") for level in ("-O0", "-Og", "-O1", "-O2", "-O3", "-Os")
                  for kind in ("pie", "exec")),
}
_CXX = {"gcc": "g++", "clang": "clang++"}
_KIND = {"pie": (["-fPIE"], ["-pie"]), "exec": (["-fno-pie"], ["-no-pie"]), "shared": (["-fPIC"], ["-shared"])}


# ---- reading a case ----------------------------------------------------------------------------------------------

_FILE = re.compile(r"v(?P<version>[1-9]\d*)(?:\.(?P<unit>[a-z]+))?\.(?P<suffix>c|cc|S)$")
_DIRECTIVE = re.compile(r"^//# (?P<name>[A-Z][\w ]*?)(?: \[(?P<where>[^\]]+)\])?:(?: (?P<value>.*))?$")
_WHOLE = {"Only", "Not", "Flags", "Link", "Plain"}                                     # in v1: about the whole case
_EACH = {"Patch", "Stdin", "Expect", "Reject", "Note", "Flags", "Init", "Symbol", "No symbol", "Changed", "Added", "Took",
         "Kept", "Without", "When"}
_AT_PATCH = {"Patch", "Reject", "Note", "Init", "Changed", "Added", "Took", "Kept", "Without", "When"}   # nothing to say in v1


class BadCase(ValueError):
    """The files of a case do not say what they should."""


@dataclass(frozen=True)
class Configuration:
    """How the programs are built. `str` of it is what a case's `[…]`, `Only` and `Not` speak of, word by word."""
    compiler: str
    level: str
    kind: str

    @classmethod
    def parse(cls, text: str) -> Configuration:
        return cls(*text.split())

    def __str__(self) -> str:
        return f"{self.compiler} {self.level} {self.kind}"

    def matches(self, words: str) -> bool:
        """Whether all of `words` are said of it; `a|b` is either."""
        mine = set(str(self).split())
        return all(not mine.isdisjoint(word.split("|")) for word in words.split())


@dataclass(frozen=True)
class Directive:
    name: str
    value: str
    where: str | None
    line: int


@dataclass
class Version:
    """One state of the source. `files`: unit -> its source in this version ("main" for v2.c, "b" for v2.b.c)."""
    number: int
    source: Path
    files: dict[str, Path]
    directives: list[Directive]

    def values(self, name: str, configuration: Configuration) -> list[str]:
        return [d.value for d in self.directives
                if d.name == name and (d.where is None or configuration.matches(d.where))]

    def value(self, name: str, configuration: Configuration, default: str | None = None) -> str | None:
        """The last one said wins, so that a special case follows the rule."""
        found = self.values(name, configuration)
        return found[-1] if found else default

    def steps(self, configuration: Configuration) -> list[tuple[str, list[str]]]:
        """(line of input, lines expected in answer to it)."""
        found: list[tuple[str, list[str]]] = []
        for d in self.directives:
            if d.where is not None and not configuration.matches(d.where):
                continue
            if d.name == "Stdin":
                found.append((d.value, []))
            elif d.name == "Expect":
                if not found:
                    found.append(("go", []))
                found[-1][1].append(d.value)
        return found


@dataclass
class Case:
    name: str
    versions: list[Version]

    @property
    def first(self) -> Version:
        return self.versions[0]

    def runs_in(self, configuration: Configuration) -> bool:
        only, without = ([d.value for d in self.first.directives if d.name == name] for name in ("Only", "Not"))
        return (not only or any(map(configuration.matches, only))) and not any(map(configuration.matches, without))


def read_case(folder: Path) -> Case:
    """Raises BadCase for anything that would not be looked at, so that a slip of the pen cannot pass for a test."""
    found: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE.match(path.name)
        if match is None:
            if path.suffix != ".h":
                raise BadCase(f"{path}: neither vN.c, vN.UNIT.c (or .cc, .S) nor a header")
            continue
        found.setdefault(int(match["version"]), {})[match["unit"] or "main"] = path
    if sorted(found) != list(range(1, len(found) + 1)) or len(found) < 2 or any("main" not in f for f in found.values()):
        raise BadCase(f"{folder}: the versions are v1, v2, … without a gap, at least two, each with its vN.c or vN.cc")
    versions: list[Version] = []
    files: dict[str, Path] = {}
    for number in sorted(found):
        files = {**files, **found[number]}
        source = found[number]["main"]
        version = Version(number, source, dict(files), _directives(source, number))
        for unit in [u for d in version.directives if d.name == "Without" for u in d.value.split()]:
            del files[unit], version.files[unit]
        versions.append(version)
    return Case(folder.name, versions)


def _directives(source: Path, number: int) -> list[Directive]:
    found = []
    allowed = (_WHOLE | _EACH) - _AT_PATCH if number == 1 else _EACH
    for at, line in enumerate(source.read_text().splitlines(), 1):
        if "//#" not in line:
            continue
        match = _DIRECTIVE.match(line)
        if match is None or match["name"] not in allowed:
            raise BadCase(f"{source}:{at}: no directive of version {number}: {line}")
        found.append(Directive(match["name"], match["value"] or "", match["where"], at))
    said = {d.name for d in found}
    if "Expect" not in said or (number > 1 and "Patch" not in said):
        raise BadCase(f"{source}: says no Expect, or no Patch")
    return found


def all_cases() -> list[Path]:
    return sorted(p for p in CASES.iterdir() if p.is_dir() and p != LIBRARY and not p.name.startswith(("_", ".")))


def configurations(full: bool) -> list[Configuration]:
    """Those of this size whose compiler is installed."""
    found = [Configuration.parse(text) for text in _CONFIGURATIONS["full" if full else "small"]]
    return [c for c in found if shutil.which(c.compiler) and shutil.which(_CXX[c.compiler])]


# ---- building ----------------------------------------------------------------------------------------------------


def run_tool(argv: Sequence[str | Path], cwd: Path | None = None) -> None:
    words = [str(a) for a in argv]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=_SECONDS, cwd=cwd,
                          stdin=subprocess.DEVNULL)
    if done.returncode:
        raise LiveError(f"{shlex.join(words)}\n{done.stderr[-6000:]}")


@functools.cache
def _runtime(folder: Path) -> list[Path]:
    """The runtime's objects, compiled once for a session."""
    folder.mkdir(parents=True)
    command = next(c for c in ("gcc", "clang") if shutil.which(c))
    objects = []
    for source in sorted(RUNTIME.glob("*.c")):
        if source.stem != "poll":
            target = folder / f"{source.stem}.o"
            run_tool([command, "-std=gnu11", "-fPIC", "-O1", "-fvisibility=hidden", f"-DHOTRELOAD_ARENA_SIZE={ARENA}",
                      "-c", source, "-o", target])
            objects.append(target)
    return objects


@dataclass
class Builder:
    """Builds the versions of one case in one configuration. `shared`: a directory for what cases have in common."""
    case: Case
    configuration: Configuration
    folder: Path
    shared: Path
    plain: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.plain = set((self.case.first.value("Plain", self.configuration) or "").split())

    def objects(self, version: Version) -> dict[str, Path]:
        """Unit -> its instrumented object. Every version's sources lie at the same place when they are compiled."""
        said = version.values("Flags", self.configuration) or self.case.first.values("Flags", self.configuration)
        flags = shlex.split(" ".join(said))
        found = {"loop": self._loop()}
        for unit, source in version.files.items():
            target = self.folder / f"v{version.number}" / f"{unit}.o"
            target.parent.mkdir(exist_ok=True)
            self._compile(source, unit, target, flags)
            found[unit] = target
        return found

    def link(self, objects: Mapping[str, Path]) -> Path:
        target = self.folder / "prog"
        run_tool([self.driver, *_KIND[self.configuration.kind][1], *objects.values(), *_runtime(self.shared / "runtime"),
                  "-o", target, *self._libraries(), "-Wl,--build-id=sha1", "-Wl,-z,noexecstack", "-lpthread", "-ldl"])
        return target

    @property
    def driver(self) -> str:
        is_cxx = any(path.suffix == ".cc" for version in self.case.versions for path in version.files.values())
        return _CXX[self.configuration.compiler] if is_cxx else self.configuration.compiler

    def request(self, image: Path, objects: Mapping[str, Path], init: str) -> ImageRequest:
        link = LinkRequest([self.driver], [self.configuration.compiler], [_CXX[self.configuration.compiler]],
                           self._libraries(), [], [], [])
        listed = [ObjectRequest(f"{unit}.o", str(path), False) for unit, path in objects.items()]
        kind: ImageKind = "shared" if self.configuration.kind == "shared" else "program"
        return ImageRequest("prog", str(image), kind, listed, link, init=init)

    def _libraries(self) -> list[str]:
        return shlex.split(self.case.first.value("Link", self.configuration) or "")

    def _loop(self) -> Path:
        target = self.shared / str(self.configuration).replace(" ", "") / "loop.o"
        if not target.exists():
            target.parent.mkdir(parents=True)
            self._compile(LIBRARY / "loop.c", "loop", target, [])
        return target

    def _compile(self, source: Path, unit: str, target: Path, flags: Sequence[str]) -> None:
        """The source is copied beside all others, so that paths in the object are the same for each version."""
        settings = self.configuration
        is_cxx = source.suffix == ".cc"
        command = _CXX[settings.compiler] if is_cxx else settings.compiler
        copy = self.folder / f"{unit}{source.suffix}"
        shutil.copyfile(source, copy)
        language = ["-std=gnu++17"] if is_cxx else ["-std=gnu17"] if source.suffix == ".c" else []
        kind = "c++" if is_cxx else "c"
        ours = compiler.flags([command], kind, dict(os.environ), stubkind.KIND) if unit not in self.plain else ()
        run_tool([command, *language, settings.level, *_KIND[settings.kind][0], *ours, *flags, f"-I{LIBRARY}",
                  f"-I{source.parent}", "-c", copy.name, "-o", target], cwd=self.folder)
        if unit not in self.plain:
            instrument.instrument_file(target, object_name=names.object_name(f"{unit}.o"),
                                       options=instrument.Options(stubs=stubkind.KIND))


def symbols_of(objects: Mapping[str, Path]) -> set[str]:
    found = {s.name for unit, path in objects.items() if unit != "loop" for s in elf.read(path).symbols if s.defined}
    return {name.removesuffix(names.BODY_SUFFIX) for name in found}


# ---- running -----------------------------------------------------------------------------------------------------


def converse(program: Program, steps: Sequence[tuple[str, list[str]]]) -> list[list[str]]:
    """What the program answers to each line of input, as lines."""
    found = []
    for line, _ in steps:
        program.send(line + "\n")
        text = program.expect(r"(?s).*?^\.\n", timeout=_REPLY_SECONDS)
        found.append(text.group().splitlines()[:-1])
    return found


@dataclass
class Run:
    """A case at work. Of the processes, all of one program, the first takes every version. Each other one stays behind at
    one version: it shows what the old code would have answered from the same state."""
    builder: Builder
    store: Store
    program: Path
    build_id: str
    main: Program
    laggards: dict[int, Program]

    @property
    def configuration(self) -> Configuration:
        return self.builder.configuration

    def begin(self) -> None:
        """Version 1: what is expected of it holds before anything is patched."""
        self.answers(self.builder.case.first, [self.main, *self.laggards.values()])

    def take(self, version: Version) -> None:
        """Patch to `version` and check all that it says."""
        objects = self.builder.objects(version)
        self.check_symbols(version, objects)
        kind, _, codes = (version.value("Patch", self.configuration) or "").partition(" ")
        behind = self.laggards.pop(version.number)
        taking = [self.main, *self.laggards.values()]
        made = self.make(version, objects, kind, codes.split())
        if made is not None:
            for program in taking:
                self.apply(version, made, program)
        new = self.answers(version, taking)
        old = converse(behind, version.steps(self.configuration))
        if kind == "ok" and not version.values("Took", self.configuration):
            assert new != old, f"{version.source}: the old code answers the same, so this shows nothing"
        for rejected in version.values("Reject", self.configuration):
            assert not any(rejected in line for lines in new for line in lines), f"{version.source}: {rejected!r} in {new}"
            assert any(rejected in line for lines in old for line in lines), (
                f"{version.source}: Reject: {rejected!r}: the old code does not answer that either: {old}")
        behind.kill()

    def answers(self, version: Version, programs: Sequence[Program]) -> list[list[str]]:
        steps = version.steps(self.configuration)
        expected = [lines for _, lines in steps]
        for program in programs:
            found = converse(program, steps)
            assert found == expected, f"{version.source} ({self.configuration}): expected {expected}, got {found}"
        return expected

    def make(self, version: Version, objects: Mapping[str, Path], kind: str, codes: Sequence[str]) -> Path | None:
        request = self.builder.request(self.program, objects, version.value("Init", self.configuration, "merge") or "")
        try:
            made = hotpatch.make_generation(self.store, self.build_id, request, ObjectMaps(self.store, request.objects))
        except Refused as e:
            said = "\n".join(map(str, e.refusals))
            assert kind == "refuse", f"{version.source} ({self.configuration}): refused: {said}"
            assert sorted({r.code for r in e.refusals}) == sorted(codes), f"{version.source}: refused otherwise: {said}"
            for wanted in version.values("Note", self.configuration):
                assert wanted in said, f"{version.source}: {wanted!r} is not in: {said}"
            return None
        assert kind == ("nothing" if made is None else "ok"), (
            f"{version.source} ({self.configuration}): {kind} expected, but "
            + ("nothing changed" if made is None else f"a patch was made: {bundle.read(made).manifest}"))
        return made

    def apply(self, version: Version, made: Path, program: Program) -> None:
        patch = bundle.read(made).image(self.build_id)
        assert patch is not None
        entry, data, _ = patch
        when = version.value("When", self.configuration, "now") or ""
        answer = process.apply(program.pid, [self.store.payload(data)], when=when, timeout=_REPLY_SECONDS).document
        image = answer["images"][0]
        assert image["functions_live"] == image["functions_changed"] == len(entry["changed"])
        for name, found in (("Took", image["updates_applied"]), ("Kept", image["updates_kept"])):
            wanted = version.value(name, self.configuration)
            assert wanted is None or int(wanted) == found, f"{version.source}: {name}: {found}, not {wanted}"
        for name, kind in (("Changed", "changed"), ("Added", "added")):
            wanted = version.value(name, self.configuration)
            listed = sorted(f["name"].removesuffix("~main.o") for f in entry[kind])
            assert wanted is None or sorted(wanted.split()) == listed, f"{version.source}: {name}: {listed}, not {wanted}"
        for text in version.values("Note", self.configuration):
            assert any(text in note for note in entry["notes"]), f"{version.source}: {text!r} not in {entry['notes']}"

    def check_symbols(self, version: Version, objects: Mapping[str, Path]) -> None:
        """What the compiler must have made, so that the case is about what its name says."""
        there = symbols_of(objects)
        for pattern in version.values("Symbol", self.configuration):
            assert any(re.fullmatch(pattern, s) for s in there), f"{version.source}: no symbol {pattern} in {sorted(there)}"
        for pattern in version.values("No symbol", self.configuration):
            found = sorted(s for s in there if re.fullmatch(pattern, s))
            assert not found, f"{version.source}: there is {found}"


def run_case(case: Case, configuration: Configuration, folder: Path, shared: Path) -> None:
    """The whole case in one configuration. Raises AssertionError with what is wrong."""
    builder = Builder(case, configuration, folder, shared)
    objects = builder.objects(case.first)
    program = builder.link(objects)
    store = Store(folder / "hotreload")
    build_id = store.file_image(program, "prog")
    environment = clean_environment(HOTRELOAD_RUNTIME_DIR=os.environ["HOTRELOAD_RUNTIME_DIR"])
    started: list[Program] = []
    try:
        started += [Program([program], env=environment) for _ in case.versions]
        run = Run(builder, store, program, build_id, started[0], dict(zip((v.number for v in case.versions[1:]), started[1:])))
        run.check_symbols(case.first, objects)
        run.begin()
        for version in case.versions[1:]:
            run.take(version)
        code = started[0].finish()
        assert code == 0, f"{case.name} ({configuration}): the program ended with {code}"
    finally:
        for child in started:
            child.kill()
