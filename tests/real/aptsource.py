"""Source packages of the distribution, fetched when a test needs them and never kept in this tree.

`apt-get source` with private lists: neither root nor an entry for sources in the machine's own configuration is needed.
apt checks signatures. What is fetched is kept in `$XDG_CACHE_HOME/hotreload-tests` (or `~/.cache/…`); with
`HOTRELOAD_OFFLINE=1` nothing is fetched.
"""
from __future__ import annotations

import glob
import os
import re
import subprocess
import tempfile
from pathlib import Path

FETCH_SECONDS = 600.0


class Unavailable(Exception):
    """The sources could not be had. The message says what was tried and what happened."""


class Offline(Unavailable):
    """They are not cached, and fetching is switched off."""


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "hotreload-tests"


def package(name: str) -> Path:
    """A directory with the .dsc, the upstream archive and the Debian part of source package `name`, unpacked by nobody.
    Raises Unavailable, Offline."""
    kept = cache() / "packages" / name
    if not kept.is_dir():
        if os.environ.get("HOTRELOAD_OFFLINE") == "1":
            raise Offline(f"the source package {name} is not in {kept}, and HOTRELOAD_OFFLINE=1 forbids to fetch it")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=kept.parent) as scratch:
            download(name, Path(scratch) / "files")
            publish(Path(scratch) / "files", kept)
    return kept


def download(name: str, target: Path) -> None:
    """Fetch source package `name` into the new directory `target`, not unpacked. Raises Unavailable."""
    with tempfile.TemporaryDirectory(prefix="apt-") as scratch:
        parts, lists, archives = (Path(scratch) / folder for folder in ("parts", "lists", "cache"))
        for directory in (parts, lists / "partial", archives / "archives" / "partial", target):
            directory.mkdir(parents=True)
        _source_lists(parts)
        apt = ["apt-get", "-q", "-o", "Dir::Etc::SourceList=", "-o", f"Dir::Etc::SourceParts={parts}",
               "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={archives}", "-o", "APT::Sandbox::User="]
        updated = run([*apt, "update"], target)     # single lists may fail: what counts is whether the package is found
        fetched = run([*apt, "source", "--download-only", name], target)
        if fetched.returncode or not list(target.glob("*.dsc")):
            raise Unavailable(f"{tail(updated)}\n{tail(fetched)}")


def publish(made: Path, kept: Path) -> None:
    """Let `made` appear as `kept`, at once or not at all."""
    try:
        made.rename(kept)
    except OSError:
        if not kept.is_dir():     # else another run was first, and its sources are as good
            raise


def _source_lists(parts: Path) -> None:
    """The machine's package sources in both formats of sources.list(5), asking for source packages."""
    for name in ["/etc/apt/sources.list", *glob.glob("/etc/apt/sources.list.d/*")]:
        path = Path(name)
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        text = path.read_text()
        if path.suffix == ".list":
            text = "\n".join(re.findall(r"^deb\b.*", text, re.MULTILINE))
            text = re.sub(r"^deb\b", "deb-src", text, flags=re.MULTILINE) + "\n"
        else:
            text = re.sub(r"^Types:.*$", "Types: deb-src", text, flags=re.MULTILINE)
        (parts / path.name).write_text(text)


def run(argv: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, cwd=cwd, timeout=FETCH_SECONDS, stdin=subprocess.DEVNULL, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    except FileNotFoundError as e:
        raise Unavailable(f"{argv[0]} is not installed") from e
    except subprocess.TimeoutExpired as e:
        raise Unavailable(f"{' '.join(argv)}: not done after {FETCH_SECONDS} s") from e


def tail(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stdout.strip().splitlines()[-8:]
    return f"{' '.join(done.args[:2])} … exited with {done.returncode}:\n  " + "\n  ".join(lines)
