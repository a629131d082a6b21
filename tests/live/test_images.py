"""A program and its library, patched by the tool: loaded before the patch, after it, and again; both of them or none."""
from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import images
import pytest

from livetools import DAMAGED, USAGE, Program, Workspace, workspace


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    source = images.write(tmp_path_factory.mktemp("images") / "source")
    with workspace(source, source.parent / "built") as work:
        work.scons()
        yield work.path


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Iterator[Workspace]:
    with workspace(built, tmp_path / "images") as work:
        work.scons()
        yield work


@pytest.fixture
def host(project: Workspace) -> Iterator[Program]:
    with project.start(["build/host", str(project.path / "build/libshape.so")]) as running:
        running.expect("^ready\n")
        running.ask("rate", "^rate 2\n")
        yield running


def generations(work: Workspace, host: Program) -> dict[str, int]:
    return {Path(i["path"]).name: i["generation"] for i in work.status(host)["images"]}


def make_bundles(work: Workspace) -> list[Path]:
    work.scons("hotpatch", "HOTPATCH_APPLY=0")
    return sorted(work.path.rglob("*.hotpatch"))


@pytest.mark.both_kinds
def test_a_library_loaded_after_the_patch(project: Workspace, host: Program) -> None:
    project.edit("src/shape.c", "n * RATE", "n * RATE * 100")
    said = project.scons("hotpatch").out
    assert re.search(rf"libshape\.so \(pid {host.pid}\): not loaded; it takes generation 1 when it is loaded", said), said
    assert "live" not in said and generations(project, host) == {"host": 0}
    assert "not loaded: build-id" in project.hotpatch("status", str(host.pid)).out
    host.ask("load", "^loaded 1\n")
    host.ask("area", "^area 2100\n", reject="area 120")
    assert generations(project, host) == {"host": 0, "libshape.so": 1}
    project.edit("src/shape.c", "n * RATE * 100", "n * RATE * 1000")
    project.scons("hotpatch")
    host.ask("area", "^area 20200\n", reject="area 2200")
    host.ask("unload", "^unloaded 0\n")
    host.ask("load", "^loaded 1\n")
    host.ask("area", "^area 20100\n", reject="area (120|2100)\n")           # loaded anew, and not as it was built
    assert "nothing changed" in project.scons("hotpatch").out
    made = sorted(project.path.rglob("*.hotpatch"))[-1]
    assert "was there already" in project.hotpatch("apply", made).out


def test_program_and_absent_library_take_one_edit(project: Workspace, host: Program) -> None:
    project.edit("src/rate.h", "RATE 2", "RATE 3")
    project.scons("hotpatch")
    host.ask("rate", "^rate 3\n", reject="rate 2")
    host.ask("load", "^loaded 1\n")
    host.ask("area", "^area 130\n", reject="area 120")


@pytest.mark.both_kinds
def test_program_and_library_take_one_edit(project: Workspace, host: Program) -> None:
    host.ask("load", "^loaded 1\n")
    host.ask("area", "^area 120\n")
    project.edit("src/rate.h", "RATE 2", "RATE 3")
    project.scons("hotpatch")
    host.ask("rate", "^rate 3\n", reject="rate 2")
    host.ask("area", "^area 230\n", reject="area 220")
    assert generations(project, host) == {"host": 1, "libshape.so": 1}


def test_a_library_in_the_way_keeps_the_program_as_it_is(project: Workspace, host: Program) -> None:
    """The program alone could be patched: nobody is in its functions. It takes the edit with its library, or not."""
    host.ask("load", "^loaded 1\n")
    host.ask("wait", "^waiting\n")
    project.edit("src/rate.h", "RATE 2", "RATE 3")
    failed = project.scons("hotpatch", "HOTPATCH_TIMEOUT=1", code=2)
    assert "in shape_wait for" in failed.err and "nothing changed in this process" in failed.err
    assert generations(project, host) == {"host": 0, "libshape.so": 0}
    host.ask("go on", "^waited 2\n", reject="waited 3")
    host.ask("rate", "^rate 2\n", reject="rate 3")
    project.scons("hotpatch")
    host.ask("rate", "^rate 3\n", reject="rate 2")
    host.ask("area", "^area 130\n", reject="area 120")


def test_a_refused_library_keeps_the_program_as_it_is(project: Workspace, host: Program) -> None:
    host.ask("load", "^loaded 1\n")
    project.edit("src/rate.h", "RATE 2", "RATE 3")
    project.edit("src/shape.c", "{ int calls; }", "{ long before; int calls; }")
    failed = project.scons("hotpatch", code=2)
    assert f"pid {host.pid}: build/host not patched either, so that no edit is half there" in failed.err
    host.ask("rate", "^rate 2\n", reject="rate 3")
    host.ask("area", "^area 120\n", reject="area 130")
    project.edit("src/shape.c", "{ long before; int calls; }", "{ int calls; }")
    project.scons("hotpatch")
    host.ask("rate", "^rate 3\n", reject="rate 2")


def test_bundles_of_several_images_go_in_together(project: Workspace, host: Program) -> None:
    host.ask("load", "^loaded 1\n")
    project.edit("src/rate.h", "RATE 2", "RATE 3")
    made = make_bundles(project)
    assert len(made) == 2
    twice = project.hotpatch("apply", made[0], made[0], "--pid", str(host.pid), code=USAGE)
    assert "two of these bundles are for the same image" in twice.err
    applied = project.hotpatch("apply", *made, "--json").json()
    live = {o["program"]: o["functions_live"] for o in applied["outcomes"]}
    assert live == {"build/host": 1, "build/libshape.so": 2}
    host.ask("rate", "^rate 3\n", reject="rate 2")
    host.ask("area", "^area 130\n", reject="area 120")


def test_later(project: Workspace, host: Program) -> None:
    """By hand: only where it is asked for. A file that is lost is said, and the bundle can be applied again."""
    project.edit("src/shape.c", "n * RATE", "n * RATE * 100")
    made, = make_bundles(project)
    refused = project.hotpatch("apply", made, "--pid", str(host.pid), code=DAMAGED)
    assert "runs no image that the bundle is for" in refused.err and "--later" in refused.err
    assert "--later needs --pid" in project.hotpatch("apply", made, "--later", code=USAGE).err
    told = project.hotpatch("apply", made, "--pid", str(host.pid), "--later")
    assert "not loaded; it takes generation 1 when it is loaded" in told.out
    files = {p["file"] for kept in project.status(host)["kept"] for p in kept["payloads"]}
    shutil.rmtree(Path(files.pop()).parent)
    host.ask("load", "^loaded 1\n")
    host.ask("area", "^area 120\n", reject="area 2100")
    said = project.hotpatch("status", str(host.pid)).out
    assert "lacks what came until generation 1" in said and "can't be opened" in said
    project.hotpatch("apply", made)
    host.ask("area", "^area 2200\n", reject="area 220\n")
    assert "lacks" not in project.hotpatch("status", str(host.pid)).out
    reverted = project.hotpatch("revert", "--pid", str(host.pid), "--to", "0", "--image", "libshape.so")
    assert "back from generation 1 to 0" in reverted.out
    host.ask("unload", "^unloaded 0\n")
    host.ask("load", "^loaded 1\n")
    host.ask("area", "^area 120\n", reject="area 2100")
