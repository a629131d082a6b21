"""Running commands as other, unprivileged users; only root can."""
from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from livetools import REPO, Workspace, clean_environment, run

_PARTS = ("hotreload_tool", "runtime", "site_scons")
_NOT_NEEDED = ("hypothesis*", "mypy*", "pip*", "pytest*", "ruff*", "setuptools*")    # large, and only for tests


@dataclass(frozen=True)
class User:
    """A user id, a home, and a Python that this user can run with the tool's libraries."""
    uid: int
    home: Path
    python: str
    libraries: Path          # a directory with the tool and what it imports

    def become(self) -> list[str]:
        """The words before a command that make it this user's."""
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--"]

    def environment(self, **extra: str) -> dict[str, str]:
        others = ("XDG_", "HOTRELOAD_RUNTIME_CACHE")          # directories of who runs the tests
        kept = {k: v for k, v in clean_environment().items() if not k.startswith(others)}
        return {**kept, "HOME": str(self.home), "PYTHONPATH": str(self.libraries), **extra}

    def workspace(self, path: Path, **extra: str) -> Workspace:
        """A project directory in which all commands are this user's."""
        python = [*self.become(), self.python, "-m"]
        return Workspace(path, self.environment(**extra),
                         [*python, "SCons", "-Q", f"--site-dir={self.libraries / 'site_scons'}"],
                         [*python, "hotreload_tool"])


@contextmanager
def two_users() -> Iterator[tuple[User, User]]:
    """`nobody` and another user without a name. Skips the test unless it runs as root, with a usable Python."""
    if os.geteuid() != 0:
        pytest.skip("only root can run programs as other users")
    if not shutil.which("setpriv"):
        pytest.skip("setpriv (util-linux) is not installed")
    root = Path(tempfile.mkdtemp(prefix="hr-users-"))
    try:
        root.chmod(0o755)
        libraries = _stage(root / "libraries")
        users = [User(uid, root / str(uid), "", libraries) for uid in (65534, 65533)]
        for user in users:
            user.home.mkdir(mode=0o755)
            os.chown(user.home, user.uid, user.uid)
        python = _usable_python(users[0])
        first, second = (User(u.uid, u.home, python, u.libraries) for u in users)
        yield first, second
    finally:
        shutil.rmtree(root, ignore_errors=True)
        for uid in (65534, 65533):
            with suppress(OSError):      # there is none, or something in it is not ours to remove
                os.rmdir(f"/tmp/hotreload-{uid}")


def _stage(target: Path) -> Path:
    """The tool, and the packages of this Python, where every user can read them."""
    shutil.copytree(sysconfig.get_path("purelib"), target, symlinks=True,
                    ignore=shutil.ignore_patterns("__pycache__", "hotreload*", "*.pth", *_NOT_NEEDED))
    for part in _PARTS:
        shutil.copytree(REPO / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [target, *target.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
    return target


def _usable_python(user: User) -> str:
    tried = []
    for python in dict.fromkeys([sys.executable, "/usr/bin/python3"]):
        done = run([*user.become(), python, "-c", "import SCons, lief, elftools, capstone, hotreload_tool"],
                   cwd=user.home, env=user.environment())
        if done.code == 0:
            return python
        tried.append(done.err.strip().splitlines()[-1] if done.err.strip() else f"{python} exited with {done.code}")
    pytest.skip(f"no Python that uid {user.uid} can run: {'; '.join(tried)}")
