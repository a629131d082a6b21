"""Programs that take only signed bundles: who signs what, what the agent refuses, and that it stays as it was."""
from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hotreload_tool import bundle, signature
from livetools import DAMAGED, USAGE, Program, Workspace, workspace

SCONSTRUCT = """
DefaultEnvironment(tools=[])
env = Environment(tools=['default', 'hotreload'], CCFLAGS=['-O1', '-g'], HOTRELOAD_TRUSTED_KEYS=['keys/release.pub'])
env.Program('build/said', ['said.c'])
"""
SOURCE = """
#include <stdio.h>
static __attribute__((noinline)) const char *word(void) { return "old"; }
int main(void) {
  char line[64];
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin))
    printf("says %s\\n", word());
  return 0;
}
"""
UNTRUSTED = "the payload is not signed by a key that this process trusts"

needs_library = pytest.mark.skipif(
    subprocess.run(["gcc", "-E", "-include", "sodium.h", "-x", "c", os.devnull], capture_output=True, check=False).returncode,
    reason="the header of libsodium (libsodium-dev) is not installed")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Workspace]:
    source = tmp_path / "source"
    (source / "keys").mkdir(parents=True)
    (source / "SConstruct").write_text(SCONSTRUCT)
    (source / "said.c").write_text(SOURCE)
    for name in ("release", "other"):
        signature.generate(source / "keys" / name)
    with workspace(source, tmp_path / "said") as work:
        shutil.copystat(source / "keys/release", work.path / "keys/release")
        work.scons()
        yield work


@pytest.fixture
def program(project: Workspace) -> Iterator[Program]:
    with project.start(["build/said"]) as running:
        running.expect("^ready\n")
        running.ask("?", "^says old\n")
        yield running


def make_bundle(project: Workspace, old: str = "old", new: str = "new") -> Path:
    project.edit("said.c", f'"{old}"', f'"{new}"')
    project.scons("hotpatch", "HOTPATCH_APPLY=0")
    return max(project.path.rglob("*.hotpatch"), key=lambda path: path.stat().st_mtime_ns)


def sign(project: Workspace, made: Path, key: str, target: str) -> Path:
    project.hotpatch("sign", made, "--key", project.path / "keys" / key, "--output", project.path / target)
    return project.path / target


def expect_refused(project: Workspace, program: Program, made: Path, why: str) -> None:
    refused = project.hotpatch("apply", made, "--pid", str(program.pid), code=DAMAGED)
    assert UNTRUSTED in refused.err and why in refused.err
    program.ask("?", "^says old\n", reject="new")
    assert [image["generation"] for image in project.status(program)["images"]] == [0]


@needs_library
def test_only_what_a_trusted_key_signed_is_taken(project: Workspace, program: Program) -> None:
    made = make_bundle(project)
    expect_refused(project, program, made, "it is not signed")
    other = sign(project, made, "other", "other.hotpatch")
    expect_refused(project, program, other, "a key that an image of this process does not trust")
    good = sign(project, made, "release", "good.hotpatch")
    applied = project.hotpatch("apply", good, "--pid", str(program.pid), "--json").json()
    assert (applied["generation"], applied["functions_live"]) == (1, 1)
    program.ask("?", "^says new\n", reject="old")
    assert project.hotpatch("apply", good, "--pid", str(program.pid), "--json").json()["already"]
    project.hotpatch("revert", "--pid", str(program.pid))
    program.ask("?", "^says old\n", reject="new")


@needs_library
def test_scons_hotpatch_without_a_key_says_why(project: Workspace, program: Program) -> None:
    project.edit("said.c", '"old"', '"new"')
    refused = project.scons("hotpatch", code=2)
    assert "it is not signed" in refused.out + refused.err
    program.ask("?", "^says old\n", reject="new")


@needs_library
@pytest.mark.parametrize("place", ["code", "header", "signature", "end"])
def test_one_changed_byte_is_refused(project: Workspace, program: Program, place: str) -> None:
    """All that the bundle says of itself fits the changed byte: only the signature does not."""
    signed = bundle.read(sign(project, make_bundle(project), "release", "good.hotpatch"))
    payload = bytearray(signed.payloads[0])
    at = {"code": payload.find(b"new\0"), "header": 0x18, "signature": -1, "end": len(payload) - 105}[place]
    assert at != -1 or place == "signature"
    payload[at] ^= 1
    entry = signed.manifest["images"][0]
    described = {**entry["payload"], **bundle.measured(bytes(payload))}
    manifest = {**signed.manifest, "images": [{**entry, "payload": described}]}
    forged = project.path / "forged.hotpatch"
    bundle.write(forged, replace(signed, manifest=manifest, payloads=[bytes(payload)]))
    expect_refused(project, program, forged, "it was changed after it was signed")


@needs_library
def test_a_signed_bundle_still_has_its_place(project: Workspace, program: Program, tmp_path: Path) -> None:
    """A good signature neither lets a generation be left out, nor reaches another build."""
    sign(project, make_bundle(project), "release", "first.hotpatch")
    second = sign(project, make_bundle(project, "new", "newer"), "release", "second.hotpatch")
    refused = project.hotpatch("apply", second, "--pid", str(program.pid), code=DAMAGED)
    assert UNTRUSTED not in refused.err and "the image is at generation 0" in refused.err
    program.ask("?", "^says old\n", reject="new")
    project.hotpatch("apply", project.path / "first.hotpatch", "--pid", str(program.pid))
    project.hotpatch("apply", second, "--pid", str(program.pid))
    program.ask("?", "^says newer\n")

    project.scons()      # another image from here on
    with project.start(["build/said"]) as later:
        later.expect("^ready\n")
        assert "build-id" in project.hotpatch("apply", second, "--pid", str(later.pid), code=DAMAGED).err
        later.ask("?", "^says newer\n")


def test_keys_have_the_right_modes(project: Workspace) -> None:
    made = project.hotpatch("keygen", project.path / "mine", "--json").json()
    assert stat.S_IMODE(os.stat(made["private"]).st_mode) == 0o600 and stat.S_IMODE(os.stat(made["public"]).st_mode) == 0o644
    assert signature.read_public(made["public"]).hex() == made["key"]
    before = Path(made["private"]).read_bytes()
    assert "is there already" in project.hotpatch("keygen", project.path / "mine", code=USAGE).err
    assert Path(made["private"]).read_bytes() == before


def test_a_key_that_others_may_read_is_not_used(project: Workspace) -> None:
    made = make_bundle(project)
    before = made.read_bytes()
    os.chmod(project.path / "keys/release", 0o640)
    assert "chmod 600" in project.hotpatch("sign", made, "--key", project.path / "keys/release", code=USAGE).err
    assert made.read_bytes() == before


def test_keys_that_are_none_are_named_at_the_build(project: Workspace) -> None:
    (project.path / "keys/release.pub").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    refused = project.scons(code=2)
    assert "HOTRELOAD_TRUSTED_KEYS" in refused.out + refused.err and "release.pub" in refused.out + refused.err
