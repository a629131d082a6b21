"""Users without privileges: one can do everything with own programs, and nothing with another's."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from users import User, two_users

from livetools import NO_PROCESS, Program, Workspace

pytestmark = pytest.mark.xdist_group("users")

_PROGRAM = r"""
#include <stdio.h>

static int calls;

static const char *greeting(void)
{
  return "hello";
}

int main(void)
{
  char line[80];
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin))
    printf("%s %d\n", greeting(), ++calls);
  return 0;
}
"""
_SCONSTRUCT = 'env = Environment(tools=["default", "hotreload"])\nenv.Program("greet", "greet.c")\n'


@pytest.fixture(scope="module")
def users() -> Iterator[tuple[User, User]]:
    with two_users() as pair:
        yield pair


def make_project(user: User, name: str) -> Workspace:
    """A small project that belongs to `user`, built. The runtime directory is the one programs take by default."""
    path = user.home / name
    path.mkdir()
    (path / "greet.c").write_text(_PROGRAM)
    (path / "SConstruct").write_text(_SCONSTRUCT)
    for entry in (path, *path.iterdir()):
        os.chown(entry, user.uid, user.uid)
    work = user.workspace(path)
    work.scons()
    return work


@contextmanager
def running(work: Workspace, user: User) -> Iterator[Program]:
    with Program([*user.become(), work.path / "greet"], cwd=work.path, env=work.env) as program:
        program.expect("^ready\n")
        program.ask("x", "^hello 1\n")
        yield program


def test_the_whole_flow(users: tuple[User, User]) -> None:
    """Build, start, edit, patch, list and look, as a user without any privilege."""
    user, _ = users
    work = make_project(user, "flow")
    with running(work, user) as program:
        work.edit("greet.c", '"hello"', '"good day"')
        assert "greeting" in work.scons("hotpatch").text
        program.ask("x", "^good day 2\n", reject="hello")
        assert work.status(program)["pid"] == program.pid
        assert str(program.pid) in work.hotpatch("ps").out
        directory = Path(f"/tmp/hotreload-{user.uid}").stat()
        assert (directory.st_uid, directory.st_mode & 0o777) == (user.uid, 0o700)
        assert program.finish() == 0


def test_the_process_of_another_user(users: tuple[User, User]) -> None:
    """Another user can neither see nor patch it, not even with the bundle and the socket's directory named."""
    owner, stranger = users
    work = make_project(owner, "mine")
    work.edit("greet.c", '"hello"', '"good day"')
    work.scons("hotpatch", "HOTPATCH_APPLY=0")
    (bundle,) = work.path.rglob("*.hotpatch")
    copied = stranger.home / "stolen.hotpatch"
    copied.write_bytes(bundle.read_bytes())
    os.chown(copied, stranger.uid, stranger.uid)
    with running(work, owner) as program:
        before = work.status(program)
        for extra in ({}, {"HOTRELOAD_RUNTIME_DIR": f"/tmp/hotreload-{owner.uid}"}):
            theirs = stranger.workspace(stranger.home, **extra)
            for command in (["status", str(program.pid)], ["apply", copied, "--pid", str(program.pid)]):
                refused = theirs.hotpatch(*command, code=NO_PROCESS)
                assert str(program.pid) in refused.err and "Traceback" not in refused.err, refused
            listed = theirs.hotpatch("ps", code=None)
            assert str(program.pid) not in listed.out and "Traceback" not in listed.err, listed
        assert work.status(program) == before
        program.ask("x", "^hello 2\n", reject="good day")
        work.hotpatch("apply", bundle, "--pid", str(program.pid))
        program.ask("x", "^good day 3\n", reject="hello")


def test_a_directory_that_another_user_prepared(users: tuple[User, User]) -> None:
    """A runtime directory that is somebody else's is not used: the program runs, and no socket appears in it."""
    owner, stranger = users
    work = make_project(owner, "trap")
    trap = stranger.home / "trap"
    trap.mkdir()
    trap.chmod(0o777)
    os.chown(trap, stranger.uid, stranger.uid)
    env = {**work.env, "HOTRELOAD_RUNTIME_DIR": str(trap)}
    with Program([*owner.become(), work.path / "greet"], cwd=work.path, env=env) as program:
        program.expect("^ready\n")
        program.ask("x", r"^hello 1\n")
        assert list(trap.iterdir()) == []
        deceived = owner.workspace(work.path, HOTRELOAD_RUNTIME_DIR=str(trap))
        deceived.hotpatch("status", str(program.pid), code=NO_PROCESS)
        assert program.finish() == 0
