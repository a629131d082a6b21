"""`scons hotpatch`, seen from the build: what it compiles, what it asks for, and what becomes of the answer.

The tool's copy gets a `hotpatch` module that prints what it is asked and answers what the environment says.
"""
from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sconsproject import BUILD_SECONDS, Built, Project, clean_environment, targets_built

HEAD = """
DefaultEnvironment(tools=[])
env = Environment(tools=['gcc', 'g++', 'gnulink', 'ar', 'hotreload'], HOTRELOAD_ARENA='1M')
"""
STAND_IN = """
import dataclasses
import json
import os


def run(request):
    print('REQUEST', json.dumps(dataclasses.asdict(request)))
    return int(os.environ.get('TEST_ANSWER', '0'))
"""
MAIN = "int twice(int x);\nint main(void) { return twice(21) - 42; }\n"
TWICE = "int twice(int x) { return 2 * x; }\n"


@pytest.fixture
def asking(tool: Path) -> Path:
    (tool / "hotreload_tool" / "hotpatch.py").write_text(STAND_IN)
    return tool


def project_of(root: Path, tool: Path, rest: str) -> Project:
    return Project.create(root, {"SConstruct": HEAD + rest, "main.c": MAIN, "twice.c": TWICE}, ["prog"], tool)


def request_of(built: Built) -> Any:
    [line] = [line for line in built.lines if line.startswith("REQUEST ")]
    return json.loads(line.removeprefix("REQUEST "))


def members(request: Any, image: str) -> list[tuple[str, bool]]:
    [found] = [i for i in request["images"] if i["name"] == image]
    return [(o["name"], o["from_archive"]) for o in found["objects"]]


# ---- what it builds --------------------------------------------------------------------------------------------


def test_compiles_what_changed_and_never_relinks(root: Path, asking: Path) -> None:
    project = project_of(root, asking, "env.Program('prog', ['main.c', 'twice.c'])\n")
    project.scons()
    linked = project.output_digests()
    project.edit("twice.c", "2 * x", "x + x + 0 * x")
    built = project.scons("hotpatch")
    assert targets_built(built) == ["twice.o"]
    assert project.output_digests() == linked
    assert targets_built(project.scons()) in (["prog"], [])     # a plain build links it, if the object came out different


def test_asks_every_time(root: Path, asking: Path) -> None:
    project = project_of(root, asking, "env.Program('prog', ['main.c', 'twice.c'])\n")
    project.scons()
    assert request_of(project.scons("hotpatch")) == request_of(project.scons("hotpatch"))


def test_objects_of_libraries_are_found_however_they_are_named(root: Path, asking: Path) -> None:
    rest = """
env.Program('by-name', 'main.c', LIBS=['two'], LIBPATH=['lib'])     # declared before the library
two = env.StaticLibrary('lib/two', 'twice.c')
env.Program('by-node', ['main.c', two])
env.Program('by-node-in-libs', 'main.c', LIBS=[two])
env.Program('by-copy', 'main.c', LIBS=['two'], LIBPATH=['stage'])
env.Command('stage/libtwo.a', two, Copy('$TARGET', '$SOURCE'))
"""
    project = project_of(root, asking, rest)
    project.scons()
    project.edit("twice.c", "2 * x", "2 * x + 1")
    built = project.scons("hotpatch")
    assert targets_built(built) == ["twice.o"]     # not even the archive
    for image in ("by-name", "by-node", "by-node-in-libs", "by-copy"):
        assert members(request_of(built), image) == [("main.o", False), ("twice.o", True)]


def test_shared_libraries_are_images_of_their_own(root: Path, asking: Path) -> None:
    rest = """
two = env.SharedLibrary('two', 'twice.c')
env.Program('prog', ['main.c', two])
env.LoadableModule('mod', ['twice.c'], SHOBJPREFIX='mod-')
"""
    project = project_of(root, asking, rest)
    project.scons()
    request = request_of(project.scons("hotpatch"))
    assert [(i["name"], i["kind"]) for i in request["images"]] == [
        ("libmod.so", "module"), ("libtwo.so", "shared"), ("prog", "program")]
    assert members(request, "prog") == [("main.o", False)]
    assert members(request, "libtwo.so") == [("twice.os", False)]
    assert request["images"][2]["link"]["sources"] == ["libtwo.so"]


def test_request_says_how_the_image_is_linked(root: Path, asking: Path) -> None:
    rest = """
env.Program('out/prog', ['main.cc', 'twice.c'], LIBS=['m', 'z'], LIBPATH=['#deps dir'], LINKFLAGS=['-Wl,-O1', '-pthread'])
"""
    project = project_of(root, asking, rest)
    project.write("main.cc", 'extern "C" int twice(int x);\nint main() { return twice(0); }\n')
    request = request_of(project.scons("hotpatch", "HOTPATCH_APPLY=0"))
    [image] = request["images"]
    link = image["link"]
    assert (link["driver"], link["cc"], link["cxx"]) == (["g++"], ["gcc"], ["g++"])
    assert (link["libs"], link["libpath"], link["flags"]) == (["-lm", "-lz"], ["-Ldeps dir"], ["-Wl,-O1", "-pthread"])
    assert "/bin" in link["environment"]["PATH"]
    assert (image["path"], request["top"]) == (str(root / "out/prog"), str(root))
    assert request["directory"] == str(root / ".hotreload")
    assert (request["apply"], request["silent"]) == (False, False)
    assert not (root / "out/prog").exists()     # never linked, not even the first time


def test_object_names_are_those_in_the_object_maps(root: Path, asking: Path) -> None:
    project = project_of(root, asking, "Export('env')\nSConscript('a dir/SConscript', variant_dir='the out', duplicate=0)\n")
    project.write("a dir/SConscript", "Import('env')\nenv.Program('prog', 'only.c')\n")
    project.write("a dir/only.c", "static int hidden;\nint main(void) { return hidden++; }\n")
    [name] = [name for name, _ in members(request_of(project.scons("hotpatch")), "the out/prog")]
    assert f"hidden~{name}".encode() in (root / "the out/only.o").read_bytes()


def test_runs_from_a_subdirectory(root: Path, asking: Path) -> None:
    project = project_of(root, asking, "env.Program('prog', ['main.c', 'twice.c'])\n")
    (root / "sub").mkdir()
    assert members(request_of(project.scons("-u", "hotpatch", cwd="sub")), "prog")


# ---- what becomes of the answer --------------------------------------------------------------------------------


def test_refusal_fails_the_build(root: Path, asking: Path) -> None:
    project = project_of(root, asking, "env.Program('prog', ['main.c', 'twice.c'])\n")
    project.environment = {"TEST_ANSWER": "1"}
    failed = project.scons("hotpatch", code=2)
    assert "scons: *** [hotpatch] not patched, for the reasons above" in failed.err


def test_compile_error_asks_nothing(root: Path, asking: Path) -> None:
    project = project_of(root, asking, "env.Program('prog', ['main.c', 'twice.c'])\n")
    project.scons()
    project.edit("twice.c", "2 * x", "2 * y")
    failed = project.scons("hotpatch", code=2)
    assert "REQUEST" not in failed.out and "twice.c:1:" in failed.err


@pytest.mark.parametrize("option", ["-n", "-c", "-h", "-q"])
def test_asks_nothing_when_nothing_may_happen(root: Path, asking: Path, option: str) -> None:
    project = project_of(root, asking, "env.Program('prog', ['main.c', 'twice.c'])\n")
    project.scons()
    assert "REQUEST" not in project.scons(option, "hotpatch", code=None).out


def test_silent_is_passed_on(root: Path, asking: Path) -> None:
    project = project_of(root, asking, "env.Program('prog', ['main.c', 'twice.c'])\n")
    built = project.scons("-s", "hotpatch")
    assert request_of(built)["silent"] is True and len(built.lines) == 1


def test_timings_of_a_cold_run(root: Path, asking: Path) -> None:
    """HOTPATCH_TIMINGS: a line on every run, and every span in a file of that name; nothing without it."""
    project = project_of(root, asking, "env.Program('prog', ['main.c', 'twice.c'])\n")
    assert "timings (ms)" not in project.scons("hotpatch").out
    project.edit("twice.c", "2 * x", "3 * x")
    project.environment = {"HOTPATCH_TIMINGS": "spans.jsonl"}
    built = project.scons("hotpatch")
    assert re.fullmatch(r"timings \(ms\): instrument [\d.]+, other [\d.]+; [\d.]+ ms in all", built.lines[-1])
    project.scons("hotpatch")
    compiled, idle = map(json.loads, (root / "spans.jsonl").read_text().splitlines())
    assert [name for name, _, _ in compiled["spans"]] == ["instrument"] and idle["spans"] == []


def test_no_images(root: Path, asking: Path) -> None:
    failed = project_of(root, asking, "env.Object('main.c')\n").scons("hotpatch", code=2)
    assert "no program of this build is made with the hotreload tool" in failed.err


def test_images_of_excluded_sources_are_left_out(root: Path, asking: Path) -> None:
    project = project_of(root, asking, "env.Program('cold', ['cold.c'])\nenv.Program('prog', ['main.c', 'twice.c'])\n")
    project.write("cold.c", "int main(void) { return 0; }\n")
    request = request_of(project.scons("hotpatch", "HOTRELOAD_EXCLUDE=cold.c"))
    assert [image["name"] for image in request["images"]] == ["prog"]


def test_bad_word_for_apply(root: Path, asking: Path) -> None:
    failed = project_of(root, asking, "env.Program('prog', ['main.c', 'twice.c'])\n").scons("hotpatch", "HOTPATCH_APPLY=perhaps",
                                                                                            code=2)
    assert "HOTPATCH_APPLY: 'perhaps' is neither yes nor no" in failed.err and "Traceback" not in failed.err


def test_switched_off(root: Path, asking: Path) -> None:
    failed = project_of(root, asking, "env.Program('prog', 'main.c')\n").scons("HOTRELOAD=0", "hotpatch", code=2)
    assert "HOTRELOAD=0 turns the tool off" in failed.err and "REQUEST" not in failed.out


def test_a_target_of_that_name_is_refused(root: Path, asking: Path) -> None:
    project = project_of(root, asking, "")
    project.write("SConstruct", "Alias('hotpatch', 'main.c')\n" + HEAD)
    assert "defines a target named 'hotpatch' itself" in project.scons(code=2).err


def test_two_at_once_take_turns(root: Path, asking: Path) -> None:
    """While somebody else holds the tree, `scons hotpatch` says that it waits, and goes on when it is free."""
    project_of(root, asking, "env.Program('prog', ['main.c', 'twice.c'])\n")
    holder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    argv = [sys.executable, "-m", "SCons", "-Q", f"--site-dir={asking / 'site_scons'}", "hotpatch"]
    with subprocess.Popen(argv, cwd=root, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as second:
        try:
            assert second.stderr is not None
            assert "waiting for another `scons hotpatch`" in second.stderr.readline()
            assert not (root / "main.o").exists()
            os.close(holder)
            out, err = second.communicate(timeout=BUILD_SECONDS)
        finally:
            second.kill()
    assert second.returncode == 0 and "REQUEST" in out, err


def test_stand_in_speaks_the_real_request() -> None:
    from hotreload_tool.request import HotpatchRequest, ImageRequest, LinkRequest, ObjectRequest
    assert all(map(dataclasses.is_dataclass, (HotpatchRequest, ImageRequest, LinkRequest, ObjectRequest)))
