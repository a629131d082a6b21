"""Projects built with SCons in tests, and `check_build`: what every build with the tool must keep.

    project = Project.create(tmp_path, {"SConstruct": ..., "a.c": ...}, outputs=["prog"])
    check_build(project, Edit("a.c", "return 1", "return 2", builds=["a.o", "prog"]))

Each build is a process of its own (SCons keeps global state) and has a bound. Nothing sleeps.
"""
from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import stubkind

REPO = Path(__file__).resolve().parents[2]
BUILD_SECONDS = 300          # a bound, not an expectation
_TOOL_PARTS = ("hotreload_tool", "runtime", "site_scons")
_BOOKKEEPING = (".sconsign",)


@dataclass(frozen=True)
class Edit:
    """An edit of one file, and the targets (relative paths) that exactly must be built again for it."""
    path: str
    old: str
    new: str
    builds: Sequence[str]


@dataclass(frozen=True)
class Built:
    """A finished SCons process."""
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def __str__(self) -> str:
        return f"exit code {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


@dataclass
class Project:
    """A source tree below `root`. `tool` is the directory whose site_scons it uses: a copy, or the repository."""
    root: Path
    outputs: list[str]                       # what a build makes, relative; compared between builds
    tool: Path = REPO
    arguments: list[str] = field(default_factory=list)    # before those of each call
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, root: Path, files: Mapping[str, str], outputs: Sequence[str] = (), tool: Path = REPO) -> Project:
        project = cls(root, list(outputs), tool)
        for path, text in files.items():
            project.write(path, text)
        return project

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace `old`, which must be there exactly once."""
        text = (self.root / path).read_text()
        assert text.count(old) == 1, f"{path}: {old!r} is there {text.count(old)} times, not once"
        (self.root / path).write_text(text.replace(old, new))

    def scons(self, *arguments: str, code: int | None = 0, cwd: str = ".", quiet: bool = True) -> Built:
        """Run SCons; asserts exit code `code` (None: any)."""
        site = [f"--site-dir={self.tool / 'site_scons'}"] if self.tool != self.root else []
        argv = [sys.executable, "-m", "SCons", *(["-Q"] if quiet else []), *site, *stubkind.ARGUMENTS, *self.arguments,
                *arguments]
        done = subprocess.run(argv, cwd=self.root / cwd, env=clean_environment(**self.environment), text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=BUILD_SECONDS, check=False)
        built = Built(done.returncode, done.stdout, done.stderr)
        assert code is None or built.code == code, f"{' '.join(argv)}: expected exit code {code}\n{built}"
        return built

    def run(self, program: str, *arguments: str) -> str:
        """Standard output of a program that was built; it must succeed."""
        done = subprocess.run([self.root / program, *arguments], cwd=self.root, stdin=subprocess.DEVNULL, text=True,
                              env=clean_environment(**self.environment), capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, f"{program}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def listing(self) -> set[str]:
        """The relative paths of all files."""
        return set(self.files())

    def files(self) -> dict[str, str]:
        """Digest of every file below `root`, by relative path; of links, where they lead. Without SCons' own books."""
        found: dict[str, str] = {}
        for folder, _, files in os.walk(self.root):
            for name in files:
                path = Path(folder, name)
                if name.startswith(_BOOKKEEPING):
                    continue
                content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
                found[path.relative_to(self.root).as_posix()] = hashlib.sha256(content).hexdigest()
        return found

    def output_digests(self) -> dict[str, str]:
        everything = self.files()
        missing = [path for path in self.outputs if path not in everything]
        assert not missing, f"the build did not make {missing}; there are {sorted(everything)}"
        return {path: everything[path] for path in self.outputs}


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without what would steer a build or the tool; `extra` is added."""
    dropped = ("SCONS", "HOTRELOAD_PAD", "HOTRELOAD_DIR", "HOTPATCH_", "PYTHONPATH")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    return {**kept, "LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1",
            "HOTRELOAD_RUNTIME_CACHE": str(REPO / "build" / "runtime-cache"), **extra}


def copy_tool(target: Path) -> Path:
    """A copy of the tool that a test may edit; returns its directory."""
    for part in _TOOL_PARTS:
        shutil.copytree(REPO / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
    return target


# ---- the nine points -------------------------------------------------------------------------------------------


def check_build(project: Project, edit: Edit) -> None:
    """Assert what users of SCons expect of any build, in a tree that is not built yet.

    The tool's own sources are edited at the end, so `project.tool` must be a copy (`copy_tool`).
    """
    assert project.tool != REPO, "check_build edits the tool: give the project a copy of it"
    before = project.listing()
    planned = check_dry_run_writes_nothing(project)
    built = project.scons()
    assert planned.out == built.out, f"-n announced something else:\n{planned}\n{built}"
    check_null_build(project)
    check_touch_builds_nothing(project, edit)
    check_one_edit(project, edit)
    check_dry_run_writes_nothing(project)
    check_quick_edits(project, edit)
    check_parallel_build(project)
    check_tool_edit(project)
    project.scons("-c")
    assert project.listing() == before, f"scons -c left or took: {sorted(project.listing() ^ before)}"


def check_null_build(project: Project) -> None:
    """Nothing changed, so nothing is built."""
    built = project.scons()
    idle = [line for line in built.lines if re.fullmatch(r"scons: .* is up to date\.", line)]
    assert built.lines and idle == built.lines, f"a second build is not a null build:\n{built}"


def check_touch_builds_nothing(project: Project, edit: Edit) -> None:
    """A new time stamp is not a change."""
    os.utime(project.root / edit.path)
    check_null_build(project)


def check_one_edit(project: Project, edit: Edit) -> None:
    """Exactly the targets that depend on the edit are built, by one command each; and again on the way back."""
    for old, new in ((edit.old, edit.new), (edit.new, edit.old)):
        project.edit(edit.path, old, new)
        planned = project.scons("-n")      # it cannot know what comes out different, so it may announce less
        built = project.scons()
        assert targets_built(built) == sorted(edit.builds), f"expected {sorted(edit.builds)} to be built:\n{built}"
        assert set(planned.lines) <= set(built.lines), f"-n announced something else:\n{planned}\n{built}"
        check_null_build(project)


def targets_built(built: Built) -> list[str]:
    """The targets of the command lines that a build printed (`-o TARGET`, or an archiver's first operand)."""
    found = []
    for line in built.lines:
        match = re.search(r'(?: -o|^ar rc) (?:"([^"]+)"|(\S+))', line)
        if match:
            found.append(match[1] or match[2])
    return sorted(found)


def check_dry_run_writes_nothing(project: Project) -> Built:
    """-n leaves every byte of the tree as it is, but for what SCons itself opens to keep its books."""
    before = project.files()
    planned = project.scons("-n")
    assert project.files() == before, "scons -n wrote"
    return planned


def check_quick_edits(project: Project, edit: Edit) -> None:
    """Edits faster than time stamps can tell apart are all seen."""
    for old, new in ((edit.old, edit.new), (edit.new, edit.old)) * 2:
        stamp = (project.root / edit.path).stat()
        project.edit(edit.path, old, new)
        os.utime(project.root / edit.path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        # SCons looks into files younger than two days even if their time stamp is the one it knows
        assert targets_built(project.scons()) == sorted(edit.builds), "a quick edit was lost"


def check_parallel_build(project: Project) -> None:
    """-j4 and -j1 make the same files, and -c goes back to where a build starts."""
    serial = project.output_digests()
    project.scons("-c")
    project.scons("-j4")
    assert project.output_digests() == serial, "-j4 made something else than -j1"
    check_null_build(project)


def check_tool_edit(project: Project) -> None:
    """Another version of the tool instruments everything again."""
    with open(project.tool / "hotreload_tool" / "names.py", "a") as source:
        source.write("\n_EDITED = True\n")
    assert targets_built(project.scons()), "an edit of the tool's own source was not seen"
    check_null_build(project)
