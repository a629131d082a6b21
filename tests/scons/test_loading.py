"""The three ways to load the tool: this repository's site_scons, and an installed package by toolpath or by hand."""
from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sconsproject import REPO, Project, clean_environment

INSTALL_SECONDS = 300
SOURCES = {"main.c": "int main(void) { return 0; }\n"}
BY_TOOLPATH = """
DefaultEnvironment(tools=[])
env = Environment(tools=['default', 'hotreload'], toolpath=[PyPackageDir('hotreload_tool')])
env.Program('prog', 'main.c')
"""
BY_HAND = """
import hotreload_tool
DefaultEnvironment(tools=[])
env = Environment()
env.Tool(hotreload_tool.generate)
env.Program('prog', 'main.c')
"""
BY_SITE = """
DefaultEnvironment(tools=[])
env = Environment(tools=['default', 'hotreload'])
env.Program('prog', 'main.c')
"""
SAY_WHERE = "import sys\nprint('loaded from', sys.modules['hotreload_tool'].__file__)\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as users install it, built from a copy so that the tree stays as it is."""
    source = tmp_path_factory.mktemp("source")
    for part in ("hotreload_tool", "runtime"):
        shutil.copytree(REPO / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / part, source)
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    [made] = out.glob("scons_hotreload-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-compile", "--no-index", "--target", str(target), str(wheel))
    return target


def pip(*arguments: str) -> None:
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(argv, env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=INSTALL_SECONDS, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout}{done.stderr}"


def test_wheel_has_the_runtime_and_the_command(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    runtime = {f"hotreload_tool/runtime/{p.relative_to(REPO / 'runtime').as_posix()}"
               for p in (REPO / "runtime").rglob("*") if p.suffix in (".c", ".h", ".def", ".S")}
    assert runtime and runtime <= names
    package = {p.relative_to(REPO).as_posix() for p in (REPO / "hotreload_tool").rglob("*")
               if p.is_file() and "__pycache__" not in p.parts}
    assert package <= names
    assert not [name for name in names if name.startswith(("tests/", "examples/", "script/", "site_scons/"))]
    [entry] = [name for name in names if name.endswith("entry_points.txt")]
    assert "hotpatch = hotreload_tool.start:main" in zipfile.ZipFile(wheel).read(entry).decode()


@pytest.mark.parametrize("script", [BY_TOOLPATH, BY_HAND], ids=["toolpath", "by hand"])
def test_installed_package(root: Path, installed: Path, script: str) -> None:
    project = Project(root, ["prog"], tool=root, environment={"PYTHONPATH": str(installed)})
    project.write("SConstruct", script + SAY_WHERE)
    project.write("main.c", SOURCES["main.c"])
    built = project.scons()
    assert f"loaded from {installed}/hotreload_tool/__init__.py" in built.out
    assert b".hotreload.map" in (root / "prog").read_bytes()
    project.run("prog")


def test_site_dir_of_a_checkout_wins_over_an_installed_package(root: Path, tool: Path, installed: Path) -> None:
    project = Project.create(root, {"SConstruct": BY_SITE + SAY_WHERE, **SOURCES}, ["prog"], tool)
    project.environment = {"PYTHONPATH": str(installed)}
    assert f"loaded from {tool}/hotreload_tool/__init__.py" in project.scons().out
    project.run("prog")


def test_checkout_as_the_project_itself(tool: Path) -> None:
    """SCons finds site_scons beside the SConstruct without being told."""
    project = Project.create(tool, {"SConstruct": BY_SITE, **SOURCES}, ["prog"], tool)
    project.scons()
    project.run("prog")


def test_top_sconstruct_builds_the_examples(tool: Path) -> None:
    shutil.copy(REPO / "SConstruct", tool)
    shutil.copytree(REPO / "examples", tool / "examples", ignore=shutil.ignore_patterns("build", ".hotreload", ".sconsign*"))
    outputs = [f"examples/{path}" for path in ("animation/build/animation", "server/build/server", "plugin/build/host",
                                               "search/build/search", "events/build/events")]
    project = Project(tool, outputs, tool)
    project.scons("-j2")
    assert all(b".hotreload.map" in (tool / path).read_bytes() for path in outputs)
    assert "up to date" in project.scons().out


def test_loading_the_tool_imports_nothing_heavy() -> None:
    """It happens at every start of every build."""
    heavy = {"capstone", "elftools", "jsonschema", "lief", "rich"}
    script = f"import sys, hotreload_tool.scons_tool; print(*{heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPO, env=clean_environment(), capture_output=True, text=True,
                          timeout=60, check=True)
    assert done.stdout.split() == []
