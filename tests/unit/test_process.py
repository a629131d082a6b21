"""The client's side of the agent protocol, against agents made of Python: no program is patched here."""
from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hotreload_tool import abi, process

STATUS = {"abi": 1, "pid": 0, "mode": "poll", "executable": "/x", "images": [{
    "build_id": "aa", "path": "/x", "kind": "pie", "load_bias": 4096,
    "arena": {"address": 1, "size": 2, "used_end": 3, "mapped": 0}, "reverted": [], "unmapped": 0,
    "generation": 1, "id": "bb", "payloads": [{"generation": 1, "id": "bb", "start": 5, "end": 6, "mapped": 1}]}]}
APPLIED = {"pid": 0, "dry_run": False, "images": [{"build_id": "aa", "generation": 1, "already": True, "functions_changed": 1,
                                                   "functions_live": 1, "updates_applied": 0, "updates_kept": 0}],
           "threads_stopped": 0, "pause_us": 0, "commit_us": 1, "frames_in_old_code": None}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "sockets"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("HOTRELOAD_RUNTIME_DIR", str(path))
    return path


class Agent:
    """Serves one connection of this process on a thread; `answer` gets the request and its files, gives raw bytes."""

    def __init__(self, directory: Path, answer: Callable[[bytes, list[bytes]], bytes]) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / f"{os.getpid()}.sock"))
        self._listener.listen()
        self._answer = answer
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener, self._listener.accept()[0] as link:
            request, files, _, _ = socket.recv_fds(link, abi.REQUEST.size, abi.MAX_PAYLOADS)
            contents = []
            for file in files:
                with open(file, "rb") as f:
                    contents.append(f.read())
            link.sendall(self._answer(request, contents))


def reply(code: str | int, doc: Any, *, version: int = abi.ABI, magic: int = abi.REPLY_MAGIC) -> bytes:
    body = doc if isinstance(doc, bytes) else json.dumps(doc).encode()
    return abi.REPLY.pack(magic, version, code if isinstance(code, int) else abi.Code[code], len(body)) + body


def test_status(directory: Path) -> None:
    seen = []

    def answer(request: bytes, files: list[bytes]) -> bytes:
        seen.append((request, files))
        return reply("OK", STATUS)

    Agent(directory, answer)
    status = process.status(os.getpid(), timeout=5)
    assert (status.mode, status.executable, status.document) == ("poll", "/x", STATUS)
    assert status.images == [process.LiveImage("aa", "/x", "pie", 4096, 1, 2, 3, 1, "bb",
                                               [process.LivePayload(1, "bb", 5, 6, 1)], [], 0, 0)]
    (request, files), = seen
    assert files == []
    assert abi.REQUEST.unpack(request) == (abi.REQUEST_MAGIC, abi.ABI, abi.Op.STATUS, 0, 0, 5000, 0, 0, bytes(32), 0)


@pytest.mark.parametrize("code, already", [("OK", False), ("ALREADY", True)])
def test_apply_sends_files_in_order(directory: Path, tmp_path: Path, code: str, already: bool) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        path.write_text(path.name)
    seen = []

    def answer(request: bytes, files: list[bytes]) -> bytes:
        seen.append((request, files))
        return reply(code, APPLIED)

    Agent(directory, answer)
    result = process.apply(os.getpid(), paths, dry_run=True, when="safepoint", timeout=5)
    assert (result.already, result.images[0].already, result.images[0].functions_live) == (already, True, 1)
    (request, files), = seen
    assert files == [b"one", b"two"]
    assert abi.REQUEST.unpack(request) == (abi.REQUEST_MAGIC, abi.ABI, abi.Op.APPLY, 1, abi.When.SAFEPOINT, 4000, 2, 0, bytes(32),
                                           0)


def test_refusal_carries_code_and_words(directory: Path) -> None:
    Agent(directory, lambda request, files: reply("BUSY", {"error": "BUSY", "message": "sorry", "detail": "later"}))
    with pytest.raises(process.AgentError) as caught:
        process.status(os.getpid())
    error = caught.value
    assert (error.code, error.exit_code, error.message, error.detail) == (abi.Code["BUSY"], 1, "sorry", "later")
    assert str(error) == "sorry: later"


@pytest.mark.parametrize("raw, code, words", [
    (reply("OK", STATUS, magic=1), "INTERNAL", "it begins with"),
    (reply("OK", STATUS, version=abi.ABI + 1), "ABI_MISMATCH", f"speaks version {abi.ABI + 1}, this tool version {abi.ABI}"),
    (reply("OK", b"{"), "INTERNAL", "not JSON"),
    (reply("OK", {"pid": 1}), "INTERNAL", "lacks 'abi'"),
    (abi.REPLY.pack(abi.REPLY_MAGIC, 1, 0, 0xFFFFFFFF), "INTERNAL", "it begins with"),
    (reply(9999, {"message": "from the future", "detail": ""}), "INTERNAL", "from the future"),
])
def test_answers_that_make_no_sense(directory: Path, raw: bytes, code: str, words: str) -> None:
    Agent(directory, lambda request, files: raw)
    with pytest.raises(process.AgentError) as caught:
        process.status(os.getpid())
    assert caught.value.code is abi.Code[code]
    assert words in str(caught.value)


@pytest.mark.parametrize("raw", [b"", reply("OK", STATUS)[:-1], reply("OK", STATUS)[:5]])
def test_agent_that_ends_early(directory: Path, raw: bytes) -> None:
    Agent(directory, lambda request, files: raw)
    with pytest.raises(process.NoAgent, match="ended") as caught:
        process.status(os.getpid())
    assert caught.value.exit_code == 3


def test_agent_that_does_not_answer(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / f"{os.getpid()}.sock"))
        listener.listen()
        with pytest.raises(process.NoAnswer, match="did not answer within 0.01 s; nothing was changed") as caught:
            process.status(os.getpid(), timeout=0.01)
    assert caught.value.exit_code == 4


def ended_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.mark.parametrize("pid", [0, -1, "ended"])
def test_no_process(directory: Path, pid: int | str) -> None:
    number = ended_process() if isinstance(pid, str) else pid
    with pytest.raises(process.NoAgent, match=f"there is no process {number}"):
        process.status(number)


def test_no_agent_says_where_it_looked_and_why_not_there(directory: Path) -> None:
    with pytest.raises(process.NoAgent, match="has no agent") as caught:
        process.status(os.getpid())
    assert str(directory) in caught.value.detail
    directory.chmod(0o755)
    with pytest.raises(process.NoAgent, match="has mode 0755, it must be 0700"):
        process.status(os.getpid())


def test_too_many_payloads(directory: Path) -> None:
    with pytest.raises(process.AgentError) as caught:
        process.apply(os.getpid(), [Path("/dev/null")] * (abi.MAX_PAYLOADS + 1))
    assert caught.value.code is abi.Code["BAD_REQUEST"]


IMPOSTOR = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
link, _ = listener.accept()
print(len(link.recv(100)), flush=True)
"""


@pytest.fixture
def impostor(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that serves another's socket."""
    child = subprocess.Popen([sys.executable, "-c", IMPOSTOR, str(directory / f"{os.getpid()}.sock")], stdout=subprocess.PIPE,
                             text=True)
    assert child.stdout and child.stdout.readline() == "ready\n"
    yield child
    child.kill()
    child.communicate()


def test_another_process_behind_the_socket_is_told_nothing(impostor: subprocess.Popen[str]) -> None:
    with pytest.raises(process.NoAgent, match=f"is served by process {impostor.pid}"):
        process.status(os.getpid())
    assert impostor.stdout and impostor.stdout.readline() == "0\n"


# ---- answers that are lost ---------------------------------------------------------------------------------------


class Forgetful(Agent):
    """Serves several connections, one after the other: an answer of None is not given."""

    def __init__(self, directory: Path, answers: list[bytes | None]) -> None:
        self.requests: list[tuple[Any, ...]] = []
        self._answers = answers
        super().__init__(directory, lambda request, files: b"")

    def _serve(self) -> None:
        with self._listener:
            for answer in self._answers:
                with self._listener.accept()[0] as link:
                    request, files, _, _ = socket.recv_fds(link, abi.REQUEST.size, abi.MAX_PAYLOADS)
                    for file in files:
                        os.close(file)
                    self.requests.append(abi.REQUEST.unpack(request))
                    if answer is not None:
                        link.sendall(answer)


def ask(tmp_path: Path, what: str) -> process.ApplyResult:
    (tmp_path / "payload").write_text("")
    if what == "apply":
        return process.apply(os.getpid(), [tmp_path / "payload"], when="quiescent", timeout=5)
    return process.revert(os.getpid(), "aa", 1, timeout=5)


@pytest.mark.parametrize("what", ["apply", "revert"])
def test_a_lost_answer_is_asked_for_again(directory: Path, tmp_path: Path, what: str) -> None:
    agent = Forgetful(directory, [None, reply("ALREADY", {**APPLIED, "dry_run": True})])
    result = ask(tmp_path, what)
    assert (result.dry_run, result.images[0].functions_live, result.document["answer_lost"]) == (False, 1, True)
    first, second = agent.requests
    assert (first[3], second[3]) == (0, abi.RequestFlags.DRY_RUN)
    assert first[:3] + first[4:] == second[:3] + second[4:]


@pytest.mark.parametrize("what", ["apply", "revert"])
def test_nothing_changed_is_said_only_where_it_is_known(directory: Path, tmp_path: Path, what: str) -> None:
    Forgetful(directory, [None, reply("OK", {**APPLIED, "dry_run": True})])
    with pytest.raises(process.LostAnswer, match="nothing was changed") as caught:
        ask(tmp_path, what)
    assert not caught.value.unknown and caught.value.exit_code == 1
    (directory / f"{os.getpid()}.sock").unlink()
    Forgetful(directory, [None, None])
    with pytest.raises(process.LostAnswer, match="it is not known whether it did what it was asked") as caught:
        ask(tmp_path, what)
    assert caught.value.unknown
    assert f"hotpatch status {os.getpid()}" in caught.value.detail
    (directory / f"{os.getpid()}.sock").unlink()
    Forgetful(directory, [None, reply("OUT_OF_ORDER", {"message": "no", "detail": ""})])
    with pytest.raises(process.LostAnswer) as caught:
        ask(tmp_path, what)
    assert caught.value.unknown


def test_an_agent_that_is_silent_both_times(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "payload").write_text("")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / f"{os.getpid()}.sock"))
        listener.listen()
        with pytest.raises(process.NoAnswer, match="did not answer within 0.01 s; it is not known") as caught:
            process.apply(os.getpid(), [tmp_path / "payload"], timeout=0.01)
        assert caught.value.unknown and caught.value.exit_code == 4
        with pytest.raises(process.NoAnswer, match="nothing was changed") as dry:
            process.apply(os.getpid(), [tmp_path / "payload"], dry_run=True, timeout=0.01)
        assert not dry.value.unknown


# ---- finding ----------------------------------------------------------------------------------------------------


def test_find_lists_the_living_and_removes_what_the_dead_left(directory: Path) -> None:
    dead, unbound = ended_process(), ended_process()
    with socket.socket(socket.AF_UNIX) as own, socket.socket(socket.AF_UNIX) as left:
        own.bind(str(directory / f"{os.getpid()}.sock"))
        own.listen()
        left.bind(str(directory / f"{dead}.sock"))
    (directory / f"{unbound}.sock").write_text("")
    (directory / "notes.txt").write_text("")
    (directory / "x.sock").write_text("")
    assert process.find() == [process.AgentAddress(os.getpid(), directory / f"{os.getpid()}.sock")]
    assert sorted(p.name for p in directory.iterdir()) == sorted([f"{os.getpid()}.sock", "notes.txt", "x.sock"])


def test_find_keeps_a_socket_that_is_served_by_a_process_it_cannot_see(directory: Path) -> None:
    """As from another pid namespace."""
    dead = ended_process()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / f"{dead}.sock"))
        listener.listen()
        assert [a.pid for a in process.find()] == [dead]


@pytest.mark.parametrize("wrong", ["mode", "link", "file", "missing"])
def test_find_passes_over_directories_it_cannot_trust(tmp_path: Path, wrong: str) -> None:
    sound, path = tmp_path / "sound", tmp_path / "path"
    sound.mkdir(mode=0o700)
    (sound / f"{os.getpid()}.sock").write_text("")
    assert len(process.find([sound])) == 1
    if wrong == "mode":
        path = sound
        path.chmod(0o750)
    elif wrong == "link":
        path.symlink_to(sound)
    elif wrong == "file":
        path.write_text("")
    assert process.find([path]) == []
    assert (sound / f"{os.getpid()}.sock").exists()


def test_runtime_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.geteuid()
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/xdg")
    monkeypatch.setenv("HOTRELOAD_RUNTIME_DIR", "/chosen")
    assert process.runtime_directories() == [Path("/chosen")]
    monkeypatch.delenv("HOTRELOAD_RUNTIME_DIR")
    usual = [Path(f"/run/user/{uid}/hotreload"), Path(f"/tmp/hotreload-{uid}")]
    assert process.runtime_directories() == [Path("/xdg/hotreload"), *usual]
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"/run/user/{uid}")
    assert process.runtime_directories() == usual
    assert process.runtime_directories(uid + 1) == [Path(f"/run/user/{uid + 1}/hotreload"), Path(f"/tmp/hotreload-{uid + 1}")]


def test_long_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ("d" * 120)
    path.mkdir(mode=0o700)
    monkeypatch.setenv("HOTRELOAD_RUNTIME_DIR", str(path))
    here = os.open(path, os.O_PATH)
    try:
        Agent(Path(f"/proc/self/fd/{here}"), lambda request, files: reply("OK", STATUS))
        assert process.status(os.getpid()).mode == "poll"
    finally:
        os.close(here)
