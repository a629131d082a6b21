"""Hooks of a program that the tool built: they run, they may refuse, and no linker drops them."""
from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from busy_fixtures import built, program, project  # noqa: F401

from livetools import REFUSED, Program, Workspace


def test_they_run_around_patches_and_reverts(project: Workspace, program: Program) -> None:  # noqa: F811
    program.ask("hooks", "^hooks 0 0 0\n")
    project.edit("src/steps.c", '"hello"', '"hi"')
    project.scons("hotpatch")
    program.ask("hooks", "^hooks 1 1 0\n")
    project.hotpatch("revert", "--pid", str(program.pid))
    program.ask("hooks", "^hooks 1 1 1\n")


def test_a_veto_is_reported_and_nothing_changes(project: Workspace, program: Program) -> None:  # noqa: F811
    program.ask("veto", "^veto 1\n")
    project.edit("src/steps.c", '"hello"', '"hi"')
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    made, = project.path.rglob("*.hotpatch")
    refused = project.hotpatch("apply", made, code=REFUSED)
    assert "a hook of the program refused the patch" in refused.err
    program.ask("say", "^hello", reject="hi,")
    program.ask("veto", "^veto 0\n")
    project.hotpatch("apply", made)
    program.ask("say", "^hi,", reject="hello")
    program.ask("veto", "^veto 1\n")
    assert "a hook" in project.hotpatch("revert", "--pid", str(program.pid), code=REFUSED).err
    program.ask("say", "^hi,")


def test_a_hook_can_be_patched(project: Workspace, program: Program) -> None:  # noqa: F811
    """The array holds the address of its stub. The hook that runs before a patch is still the old one."""
    project.edit("src/main.c", "{ before++; return to > from && veto; }", "{ before += 10; return to > from && veto; }")
    project.scons("hotpatch")
    program.ask("hooks", "^hooks 1 1 0\n")
    project.edit("src/steps.c", '"hello"', '"hi"')
    project.scons("hotpatch")
    program.ask("hooks", "^hooks 11 2 0\n")


@pytest.mark.parametrize("linker", ["gold", "lld", "mold"])
def test_other_linkers_keep_them(project: Workspace, linker: str) -> None:  # noqa: F811
    if not shutil.which(f"ld.{linker}"):
        pytest.skip(f"ld.{linker} is not installed")
    project.edit("SConstruct", "'-g'])", f"'-g'], LINKFLAGS=['-fuse-ld={linker}', '-Wl,--gc-sections'])")
    project.scons()
    with project.start(["build/busy"]) as running:
        running.expect("^ready\n")
        project.edit("src/steps.c", '"hello"', '"hi"')
        project.scons("hotpatch")
        running.ask("hooks", "^hooks 1 1 0\n")
        running.ask("say", "^hi,", reject="hello")


def test_without_the_tool_they_are_nothing(project: Workspace) -> None:  # noqa: F811
    project.scons("HOTRELOAD=0")
    with project.start([Path("build/busy")]) as running:
        running.expect("^ready\n")
        running.ask("hooks", "^hooks 0 0 0\n")
