"""`verify` and `attest` where people meet them: signed bundles of a program and of its shared library, live in a process."""
from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import Broken
from test_attest import flip
from test_signed import needs_library

from hotreload_tool import signature
from hotreload_tool.verify import memory
from livetools import DAMAGED, Program, Workspace, workspace

SCONSTRUCT = """
DefaultEnvironment(tools=[])
env = Environment(tools=['default', 'hotreload'], CCFLAGS=['-O1', '-g'], HOTRELOAD_TRUSTED_KEYS=['keys/release.pub'])
library = env.SharedLibrary('build/word', ['word.c'])
env.Program('build/said', ['said.c', library], RPATH=[Dir('build').abspath])
"""
WORD = """
static __thread int asked;
static __attribute__((noinline)) int count(void) { return ++asked; }
const char *word(int *times) { *times = count(); return "old"; }
"""
SAID = """
#include <stdio.h>
const char *word(int *times);
static __attribute__((noinline)) void say(const char *what, int times) { printf("says %s %d\\n", what, times); }
int main(void) {
  char line[64];
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    int times;
    const char *what = word(&times);
    say(what, times);
  }
  return 0;
}
"""
TAMPERED = 1
IMAGES = {"word.c": "build/libword.so", "said.c": "build/said"}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Workspace]:
    source = tmp_path / "source"
    (source / "keys").mkdir(parents=True)
    (source / "SConstruct").write_text(SCONSTRUCT)
    (source / "word.c").write_text(WORD)
    (source / "said.c").write_text(SAID)
    for name in ("release", "other"):
        signature.generate(source / "keys" / name)
    with workspace(source, tmp_path / "work") as work:
        shutil.copystat(source / "keys/release", work.path / "keys/release")
        work.scons()
        yield work


def signed_bundle(project: Workspace, unit: str, old: str, new: str) -> tuple[Path, Path]:
    """A bundle as `scons hotpatch` makes it, and the same one signed."""
    project.edit(unit, old, new)
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    made = max(project.path.rglob("*.hotpatch"), key=lambda path: path.stat().st_mtime_ns)
    project.hotpatch("sign", made, "--key", project.path / "keys/release", "--output", project.path / f"{unit}.hotpatch")
    return made, project.path / f"{unit}.hotpatch"


def checked(project: Workspace, bundle: Path, image: Path, *more: object, code: int = 0) -> Any:
    return project.hotpatch("verify", bundle, "--image", image, "--json", *more, code=code).json()


def attested(project: Workspace, program: Program, images: Iterable[Path], bundles: Iterable[Path],
             code: int = 0) -> dict[str, Any]:
    """What is said of each image, by its file's name."""
    words = [word for image in images for word in ("--image", image)] + [word for made in bundles for word in ("--bundle", made)]
    document = project.hotpatch("attest", program.pid, "--json", *words, code=code).json()
    assert document["attested"] == (code == 0)
    return {os.path.basename(image["path"]): image for image in document["images"]}


@pytest.mark.both_kinds
@needs_library
def test_a_signed_program_and_its_library(project: Workspace, tmp_path: Path) -> None:
    deployed = {unit: shutil.copy2(project.path / image, tmp_path / Path(image).name) for unit, image in IMAGES.items()}
    keys = project.path / "keys"
    with project.start(["build/said"]) as program:
        program.expect("^ready\n")
        program.ask("?", "^says old 1\n")
        bundles = []
        for unit, old, new in (("word.c", 'times = count(); return "old"', 'times = 10 * count(); return "new"'),
                               ("said.c", "says %s %d", "says %s, %d")):
            plain, signed = signed_bundle(project, unit, old, new)
            image = deployed[unit]
            assert checked(project, signed, image, "--strict", "--key", keys / "release.pub")["sound"]
            assert checked(project, signed, image, "--key", keys / "other.pub", code=DAMAGED)["failed"] == ["signature"]
            assert checked(project, plain, image, "--key", keys / "release.pub", code=DAMAGED)["failed"] == ["signature"]
            project.hotpatch("apply", signed, "--pid", program.pid)
            bundles.append(signed)
        program.ask("?", "^says new, 20\n", reject="old")
        found = attested(project, program, deployed.values(), bundles)
        assert {name: (i["generation"], i["problems"]) for name, i in found.items()} == {"libword.so": (1, []), "said": (1, [])}
        project.scons()                       # the new images, linked from the sources as they are now
        for (unit, image), signed in zip(IMAGES.items(), bundles):
            words = "--strict", "--key", keys / "release.pub", "--against", project.path / image
            assert checked(project, signed, deployed[unit], *words)["sound"]
        against_old = checked(project, bundles[0], deployed["word.c"], "--against", deployed["word.c"], code=1)
        assert "completeness-different" in against_old["failed"]
        with memory.Memory(program.pid) as read:
            bias = next(i.bias for i in read.images() if i.path.endswith("libword.so"))
        flip(program, bias + Broken.of(bundles[0]).tables.redirects[0].new + 1)
        found = attested(project, program, deployed.values(), bundles, code=TAMPERED)
        assert found["libword.so"]["functions"] == ["word"] and not found["said"]["problems"]
    assert stat.S_IMODE((project.path / "keys/release").stat().st_mode) == 0o600
