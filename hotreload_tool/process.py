"""Running processes: find their agents, ask what is live, hand payloads over.

The protocol is in runtime/hotreload_abi.h, the runtime directories in docs/formats.md. Every wait has a bound.
"""
from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from . import abi, confined, steps
from .errors import HotreloadError

_SUFFIX = ".sock"
_SUN_PATH = 108                    # bytes of sockaddr_un.sun_path, with the final zero
_MAX_ANSWER = 1 << 28              # bound on what an agent may claim to send
_CRED = struct.Struct("iII")       # struct ucred: pid, uid, gid
_CONNECT_SECONDS = 2.0             # to find out whether anybody listens on a socket
_ANEW_SECONDS = 0.5                # an agent that lost its socket has another one by then
_LOOK_SECONDS = 0.01
_END_SECONDS = 1.0                 # a process that ends closes its sockets a little earlier
_AGAIN_SECONDS = 2.0               # to ask what became of a request whose answer did not come

Json = dict[str, Any]
_T = TypeVar("_T")


class AgentError(HotreloadError):
    """An agent refused. `message` says what, `detail` what exactly and where; the process is unchanged."""

    def __init__(self, code: abi.CodeBase, message: str, detail: str = "", document: Json | None = None) -> None:
        self.code: abi.CodeBase | None = code
        self.document: Json = document or {}     # the agent's whole answer; {} if it gave none
        self.message = message
        self.detail = detail
        self.exit_code = code.entry.exit_code
        super().__init__(f"{message}: {detail}" if detail else message)


class NoAgent(HotreloadError):
    """No such process, or none that can be patched."""
    exit_code = 3

    def __init__(self, message: str, detail: str = "") -> None:
        self.message = message
        self.detail = detail
        super().__init__(f"{message}: {detail}" if detail else message)


class NoAnswer(AgentError):
    """The agent did not answer in time. The request is withdrawn: an agent does not commit for a client that left.

    It may have committed before. Where it could not be asked what became of the request, `unknown` is True."""
    unknown = False

    def __init__(self, pid: int, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(abi.Code["DEADLINE"], f"process {pid} did not answer within {seconds:g} s; nothing was changed",
                         "it is stopped or busy, or it has not called hotreload_poll(); try again with a longer --timeout")


class LostAnswer(AgentError):
    """The connection ended without an answer, though the process lives. `unknown` as for NoAnswer."""
    unknown = False

    def __init__(self, pid: int, why: str) -> None:
        self.seconds = _AGAIN_SECONDS
        super().__init__(abi.Code["INTERNAL"], f"process {pid} closed the connection without an answer; nothing was changed",
                         f"it may be short of memory or descriptors ({why})")


class AgentAddress(NamedTuple):
    pid: int
    socket: Path


class LivePayload(NamedTuple):
    """One applied generation; addresses are image-relative and page-aligned."""
    generation: int
    id: str                        # 64 hex digits
    start: int
    end: int
    mapped: int                    # bytes of it that are in the process


class LiveImage(NamedTuple):
    """One instrumented image of a process; addresses are image-relative."""
    build_id: str                  # hex, "" if the image has none
    path: str
    kind: str                      # "exec" | "pie" | "shared"
    load_bias: int
    arena_address: int
    arena_size: int                # bytes
    arena_used_end: int            # the first address after all payloads
    generation: int                # 0: as built
    id: str                        # of the newest payload; zeros for generation 0
    payloads: list[LivePayload]    # newest first; those that have anything mapped
    reverted: list[LivePayload]    # the same of generations that were taken back
    arena_mapped: int              # bytes of all of these
    unmapped: int                  # generations, live or reverted, of which nothing is mapped any more
    missed: Json | None = None     # what a library loaded after patches could not take: {"generation", "reason"}

    @classmethod
    def from_json(cls, doc: Json) -> LiveImage:
        arena = doc["arena"]
        payloads, reverted = ([LivePayload(p["generation"], p["id"], p["start"], p["end"], p["mapped"]) for p in doc[key]]
                              for key in ("payloads", "reverted"))
        return cls(doc["build_id"], doc["path"], doc["kind"], doc["load_bias"], arena["address"], arena["size"],
                   arena["used_end"], doc["generation"], doc["id"], payloads, reverted, arena["mapped"], doc["unmapped"],
                   doc.get("missed"))


class KeptImage(NamedTuple):
    """One build of a library, and what copies of it take when they are loaded."""
    build_id: str                  # hex
    generation: int
    ids: list[str]                 # of generations 1, 2, …

    @classmethod
    def from_json(cls, doc: Json) -> KeptImage:
        return cls(doc["build_id"], doc["generation"], [p["id"] for p in doc["payloads"]])


@dataclass(frozen=True)
class ProcessStatus:
    pid: int
    abi: int
    mode: str                      # "thread" | "poll"
    executable: str                # as it was called when the process started
    images: list[LiveImage]
    document: Json = field(repr=False)     # the agent's whole answer
    kept: list[KeptImage] = field(default_factory=list)   # libraries that were patched, loaded or not

    @classmethod
    def from_json(cls, doc: Json) -> ProcessStatus:
        return cls(doc["pid"], doc["abi"], doc["mode"], doc["executable"],
                   [LiveImage.from_json(image) for image in doc["images"]], doc,
                   [KeptImage.from_json(kept) for kept in doc.get("kept", [])])


class ImageResult(NamedTuple):
    build_id: str
    generation: int                # that is live now
    already: bool                  # the payload had been applied before
    functions_changed: int
    functions_live: int            # read back from the process's slots; 0 in a dry run
    updates_applied: int
    updates_kept: int
    waiting: bool = False          # the library is not loaded: it takes the generation when it is


class ApplyResult(NamedTuple):
    pid: int
    dry_run: bool
    already: bool                  # all of it: nothing was to be done
    images: list[ImageResult]
    attempts: int                  # to find all threads outside of what changes; 0: none was needed
    threads_stopped: int
    threads_interrupted: int       # of these: were in a system call
    threads_asleep: int            # were left asleep in the kernel
    pause_us: int                  # from the first signal until all may run again
    commit_us: int
    frames_in_old_code: int | None     # None: stacks were not looked at
    document: Json = field(repr=False)     # the agent's whole answer

    @classmethod
    def from_json(cls, doc: Json, already: bool) -> ApplyResult:
        images = [ImageResult(i["build_id"], i["generation"], i["already"], i["functions_changed"], i["functions_live"],
                              i["updates_applied"], i["updates_kept"], i.get("waiting", False)) for i in doc["images"]]
        return cls(doc["pid"], doc["dry_run"], already, images, doc.get("attempts", 0), doc["threads_stopped"],
                   doc.get("threads_interrupted", 0), doc.get("threads_asleep", 0), doc["pause_us"], doc["commit_us"],
                   doc["frames_in_old_code"], doc)


# ---- finding ---------------------------------------------------------------------------------------------------


def runtime_directories(uid: int | None = None) -> list[Path]:
    """Where agents of user `uid` (default: the caller) may have their sockets, whether the directories exist or not."""
    chosen = os.environ.get("HOTRELOAD_RUNTIME_DIR")
    if chosen:
        return [Path(chosen)]
    uid = os.geteuid() if uid is None else uid
    found = [Path(f"/run/user/{uid}/hotreload"), Path(f"/tmp/hotreload-{uid}")]
    xdg = os.environ.get("XDG_RUNTIME_DIR")
    if xdg and uid == os.geteuid():
        found.insert(0, Path(xdg) / "hotreload")
    return list(dict.fromkeys(found))


def agent_directories(pid: int) -> list[Path]:
    """Where files of process `pid` may lie that can be trusted to be its user's."""
    return [directory for directory, owner in _places(pid) if not _distrust(directory, owner)]


def find(directories: Iterable[Path] | None = None) -> list[AgentAddress]:
    """The agents of the user's processes, by pid. Sockets that dead processes left behind are removed.

    The agents themselves are not disturbed: whether one answers shows when it is asked.
    """
    found: dict[int, AgentAddress] = {}
    for directory in runtime_directories() if directories is None else directories:
        if _distrust(directory, os.geteuid()):
            continue
        for path in directory.glob(f"*{_SUFFIX}"):
            if path.stem.isdecimal() and not _removed_if_stale(path):
                found.setdefault(int(path.stem), AgentAddress(int(path.stem), path))
    return sorted(found.values(), key=lambda a: a.pid)


def _distrust(directory: Path, uid: int) -> str:
    """Why sockets in `directory` must not be talked to; "" if they may. Another user could have made it."""
    try:
        info = os.lstat(directory)
    except OSError as e:
        return e.strerror or "not accessible"
    if not stat.S_ISDIR(info.st_mode):
        return "not a directory"
    if info.st_uid != uid:
        return f"belongs to user {info.st_uid}, not to {uid}"
    mode = stat.S_IMODE(info.st_mode)
    return "" if mode == 0o700 else f"has mode {mode:04o}, it must be 0700"


def exists(pid: int) -> bool:
    """Whether there is such a process, whoever it belongs to."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _ends(pid: int, seconds: float) -> bool:
    """Whether the process has ended, or does within `seconds`; its parent need not know yet."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:                # a kernel without pidfd_open(2), or no descriptor is left
        return not exists(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(1000 * seconds))
    finally:
        os.close(handle)


def _removed_if_stale(path: Path) -> bool:
    """A pid that can't be seen may live in another pid namespace: only a socket nobody listens on is stale."""
    if exists(int(path.stem)) and not _ends(int(path.stem), 0):
        return False
    try:
        _connect(path, _CONNECT_SECONDS).close()
    except (ConnectionRefusedError, FileNotFoundError):
        with contextlib.suppress(OSError):
            path.unlink()
        return True
    except OSError:
        return False
    return False


def _connect(path: Path, seconds: float) -> socket.socket:
    """Raises OSError."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(seconds)
        with _short(path) as name:
            link.connect(name)
    except BaseException:
        link.close()
        raise
    return link


def _reach(path: Path, pid: int, seconds: float) -> socket.socket:
    """The same. An agent among the program's descriptors makes another socket when the program closed its own, a little later."""
    deadline = time.monotonic() + min(seconds, _ANEW_SECONDS)
    while True:
        try:
            return _connect(path, seconds)
        except ConnectionRefusedError:
            if time.monotonic() > deadline or not exists(pid):
                raise
        time.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for `path` that fits into a socket address."""
    if len(os.fsencode(path)) < _SUN_PATH:
        yield os.fspath(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


# ---- asking ----------------------------------------------------------------------------------------------------


def status(pid: int, timeout: float = 10.0) -> ProcessStatus:
    """What is live in process `pid`. `timeout` in seconds. Raises NoAgent, AgentError."""
    deadline = time.monotonic() + timeout
    with _agent(pid, timeout) as link:
        request = abi.pack_request(abi.Op.STATUS, timeout_ms=int(timeout * 1000))
        _, doc = _exchange(link, pid, request, [], deadline, timeout)
    return _read(ProcessStatus.from_json, pid, doc)


def apply(pid: int, payloads: Sequence[Path], dry_run: bool = False, when: abi.When | str = abi.When.NOW,
          timeout: float = 10.0, ballot: int | None = None, guard: float = 0.0, for_later: bool = False) -> ApplyResult:
    """Hand `payloads` (at most abi.MAX_PAYLOADS files) to process `pid`, which takes all of them or none.

    It makes copies of them. With `for_later` those for libraries that are not loaded are kept, to be taken from their
    files when one is loaded; else they are refused. `when` is an abi.When or its name in lower case, `timeout` in
    seconds, `ballot` the descriptor of a together.Ballot if other processes are to take theirs in the same step. With
    `guard` seconds the process takes them back if they crash in that time (guard.wait). Raises NoAgent, AgentError,
    OSError if a file can't be opened.
    """
    moment = abi.When[when.upper()] if isinstance(when, str) else when
    deadline = time.monotonic() + timeout
    if len(payloads) > abi.MAX_PAYLOADS:
        raise AgentError(abi.Code["BAD_REQUEST"], f"{len(payloads)} payloads at once; an agent takes {abi.MAX_PAYLOADS}")
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context(open(path, "rb")).fileno() for path in payloads]
        link = opened.enter_context(_agent(pid, timeout))
        request = abi.pack_request(abi.Op.APPLY, len(files), dry_run=dry_run, together=ballot is not None,
                                   for_later=for_later, when=moment, timeout_ms=_share(timeout),
                                   guard_ms=0 if dry_run else int(1000 * guard))
        code, doc = _exchange(link, pid, request, files + _listed(ballot), deadline, timeout)
    return _read(lambda d: ApplyResult.from_json(d, code is abi.Code["ALREADY"]), pid, doc)


def revert(pid: int, build_id: str, generation: int, dry_run: bool = False, when: abi.When | str = abi.When.QUIESCENT,
           timeout: float = 10.0, ballot: int | None = None, payloads: Sequence[Path] = ()) -> ApplyResult:
    """Bring one image of process `pid` back to an earlier `generation` (0: as built).

    `functions_changed` of the result counts the slots that went back. `payloads`: of generations whose code was unmapped and
    is needed again, at most abi.MAX_PAYLOADS. Arguments and errors are those of `apply`.
    """
    moment = abi.When[when.upper()] if isinstance(when, str) else when
    deadline = time.monotonic() + timeout
    request = abi.pack_request(abi.Op.REVERT, len(payloads), dry_run=dry_run, together=ballot is not None, when=moment,
                               timeout_ms=_share(timeout), generation=generation, build_id=bytes.fromhex(build_id))
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context(open(path, "rb")).fileno() for path in payloads]
        link = opened.enter_context(_agent(pid, timeout))
        code, doc = _exchange(link, pid, request, [*files, *_listed(ballot)], deadline, timeout)
    return _read(lambda d: ApplyResult.from_json(d, code is abi.Code["ALREADY"]), pid, doc)


def _listed(ballot: int | None) -> list[int]:
    return [] if ballot is None else [ballot]


def _share(timeout: float) -> int:
    """Milliseconds the agent may try, so that its answer, which says who was in the way, still comes within `timeout` s."""
    return max(1, int(1000 * (timeout - min(1.0, timeout / 5))))


def _read(make: Callable[[Json], _T], pid: int, doc: Json) -> _T:
    try:
        return make(doc)
    except (KeyError, TypeError) as e:
        raise _garbled(pid, f"its answer lacks {e}") from e


def _garbled(pid: int, why: str) -> AgentError:
    return AgentError(abi.Code["INTERNAL"], f"what process {pid} answered can't be read", why)


def _owner(pid: int) -> int:
    """The user whose directories to look in. Only root may speak to agents of others."""
    if os.geteuid() != 0:
        return os.geteuid()
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return 0


@contextlib.contextmanager
def _agent(pid: int, seconds: float) -> Iterator[socket.socket]:
    """A connection to the agent of `pid`, which is shown to be that process. Raises NoAgent, NoAnswer."""
    if pid <= 0 or not exists(pid):
        raise NoAgent(f"there is no process {pid}")
    confined.check(pid)
    looked = []
    for directory, owner in _places(pid):
        why = _distrust(directory, owner)
        path = directory / f"{pid}{_SUFFIX}"
        if why:
            looked.append(f"{directory} ({why})")
            continue
        try:
            link = _reach(path, pid, seconds)
        except (FileNotFoundError, ConnectionRefusedError):
            looked.append(str(directory))
            continue
        except TimeoutError:
            raise NoAnswer(pid, seconds) from None
        with link:
            _check_peer(link, pid, owner)
            yield link
        return
    raise NoAgent(f"process {pid} has no agent: it was built without hotreload, or it started with HOTRELOAD_DISABLE set "
                  f"or with another runtime directory{_elsewhere(pid)}{_recall(pid)}", f"looked in {', '.join(looked)}")


def _places(pid: int) -> list[tuple[Path, int]]:
    """Directories in which the agent of `pid` may have its socket, with the user to whom they must belong. A process that
    root started and that gave its rights up has it in root's."""
    owners = dict.fromkeys([_owner(pid), os.geteuid()])
    return list(dict.fromkeys((directory, owner) for owner in owners for directory in runtime_directories(owner)))


def _elsewhere(pid: int) -> str:
    """A hint for processes of containers: they have other numbers there, and another /tmp."""
    try:
        elsewhere = any(os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "mnt"))
    except OSError:
        return ""
    return ", or it lives in a container: run hotpatch inside of that" if elsewhere else ""


def _recall(pid: int) -> str:
    """A hint for a process that agreed to a signal when it was started (runtime/recall.c)."""
    try:
        catches = int(dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
                           if ":\t" in line)["SigCgt"], 16)
        words = dict(word.split(b"=", 1) for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if b"=" in word)
        number = int(words.get(b"HOTRELOAD_SIGNAL", b"0"))
    except (OSError, ValueError, KeyError):
        return ""
    if not 0 < number <= 64 or not catches >> (number - 1) & 1:
        return ""
    return f"; it was started with HOTRELOAD_SIGNAL={number}, so `kill -{number} {pid}` makes it listen again"


def _check_peer(link: socket.socket, pid: int, owner: int) -> None:
    """Raises NoAgent if it is not the process that was asked for, run by the user it belongs to."""
    peer_pid, peer_uid, _ = _CRED.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CRED.size))
    if peer_pid != pid or peer_uid not in (owner, 0):
        raise NoAgent(f"the socket of process {pid} is served by process {peer_pid} of user {peer_uid}",
                      "it was not asked anything")


def _exchange(link: socket.socket, pid: int, request: bytes, files: list[int], deadline: float,
              seconds: float) -> tuple[abi.CodeBase, Json]:
    """Send the request, return the code (OK or ALREADY) and the document. Raises AgentError, NoAgent.

    If the answer does not come, the agent is asked what became of the request; the document then has "answer_lost"."""
    try:
        return _converse(link, pid, request, files, deadline, seconds)
    except (NoAnswer, LostAnswer) as lost:
        link.close()                                   # an agent that has not begun with it leaves it
        n_payloads, again = abi.as_dry_run(request)
        if again is not None and exists(pid):
            return _ask_again(pid, again, files[:n_payloads], lost)
        if isinstance(lost, NoAnswer):
            raise
        raise NoAgent(f"process {pid} ended, or its agent did, before it answered", lost.detail) from lost


def _ask_again(pid: int, request: bytes, files: list[int], lost: NoAnswer | LostAnswer) -> tuple[abi.CodeBase, Json]:
    """What became of a request without an answer: the same as a dry run says "already there" if it was done, "done" if it
    could be done now. An agent serves one request after the other, so the first is through when it answers. Raises `lost`,
    NoAgent."""
    seconds = min(_AGAIN_SECONDS, lost.seconds)
    try:
        with _agent(pid, seconds) as link:
            code, doc = _converse(link, pid, request, files, time.monotonic() + seconds, seconds)
    except (AgentError, NoAgent) as e:
        if _ends(pid, 0 if isinstance(e, NoAnswer) else _END_SECONDS):
            raise NoAgent(f"process {pid} ended before it answered") from lost
        lost.unknown = True
        lost.message = lost.message.replace("nothing was changed", "it is not known whether it did what it was asked")
        lost.detail = f"`hotpatch status {pid}` says what is live as soon as it answers again"
        lost.args = (f"{lost.message}: {lost.detail}",)
        raise lost from None
    if code is abi.Code["ALREADY"]:
        return code, {**doc, "dry_run": False, "answer_lost": True}
    raise lost


def _converse(link: socket.socket, pid: int, request: bytes, files: list[int], deadline: float,
              seconds: float) -> tuple[abi.CodeBase, Json]:
    """Send the request, return the code (OK or ALREADY) and the document. Raises AgentError."""
    try:
        steps.reached(steps.Step.REQUEST)
        with contextlib.suppress(BrokenPipeError):     # it may have answered and closed: read what it said
            socket.send_fds(link, [request], files)
        steps.reached(steps.Step.ANSWER)
        number, length = _reply_head(_receive(link, abi.REPLY.size, deadline), pid)
        body = _receive(link, length, deadline)
        steps.reached(steps.Step.ANSWERED)
    except TimeoutError:
        raise NoAnswer(pid, seconds) from None
    except (ConnectionError, EOFError) as e:
        raise LostAnswer(pid, str(e)) from e
    try:
        doc = json.loads(body)
    except ValueError as e:
        raise _garbled(pid, f"not JSON: {e}") from e
    code = _code(number)
    if code not in (abi.Code["OK"], abi.Code["ALREADY"]):
        raise AgentError(code, str(doc.get("message", "")), str(doc.get("detail", "")), doc)
    return code, doc


def _code(number: int) -> abi.CodeBase:
    try:
        return abi.Code(number)
    except ValueError:      # of a newer agent
        return abi.Code["INTERNAL"]


def _reply_head(head: bytes, pid: int) -> tuple[int, int]:
    magic, version, code, length = abi.REPLY.unpack(head)
    if magic != abi.REPLY_MAGIC or length > _MAX_ANSWER:
        raise _garbled(pid, f"it begins with {head.hex()}")
    if version != abi.ABI:
        raise AgentError(abi.Code["ABI_MISMATCH"], abi.Code["ABI_MISMATCH"].entry.sentence,
                         f"process {pid} speaks version {version}, this tool version {abi.ABI}")
    return code, length


def _receive(link: socket.socket, size: int, deadline: float) -> bytes:
    """Exactly `size` bytes. Raises TimeoutError, EOFError, ConnectionError."""
    data = bytearray()
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        link.settimeout(left)
        part = link.recv(min(size - len(data), 1 << 16))
        if not part:
            raise EOFError(f"{len(data)} of {size} bytes came")
        data += part
    return bytes(data)
